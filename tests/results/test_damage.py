"""Records that an editor, another version or a bad disk changed: refused in one sentence, or read without a figure that breaks."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runs
from commands import run
from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line
from robustseg.report import compare, page
from robustseg.results.record import read_records

LINES = [
    json.loads(
        json_line(runs.record("zoo:a", "clean", 0.1, n=2, verdicts={"attacked": ["none", "teacher"]}).to_json())
    ),
    json.loads(
        json_line(
            runs.record("zoo:a", "pgd(budget='linf:8/255')", 0.5, rms=0.02, n=2, source="zoo:b", content="ab").to_json()
        )
    ),
]
DEEP: Any = []
for _ in range(10):
    DEEP = {"a": [DEEP]}
MISSING = object()
WRONG = (
    *(
        None,
        True,
        -1,
        0,
        1,
        1.5,
        1e30,
        1e-300,
        10**30,
        10**4000,
        float("nan"),
        float("inf"),
        "",
        "x" * 100_000,
        "\ud800\x00",
    ),
    *("((((" * 500, "pgd(budget='linf:9')", [], [1, 2, 3], [[]], {}, {"a": {}}, DEEP, MISSING),
)


def places(data: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a record: every field, every entry, and the first of each list."""
    for key, value in data.items() if isinstance(data, dict) else list(enumerate(data))[:1]:
        yield (*above, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*above, key))


def with_(place: tuple[Any, ...], value: Any, schema: int) -> str:
    """The two lines of a run with something else in one place of the second."""
    lines = copy.deepcopy(LINES)
    if schema == 2:
        lines = [{**{key: v for key, v in line.items() if key != "digest"}, "schema": 2} for line in lines]
    here = lines[1]
    for key in place[:-1]:
        here = here[key]
    if value is MISSING:
        del here[place[-1]]
    else:
        here[place[-1]] = value
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


@pytest.mark.parametrize("place", list(places(LINES[1])), ids=lambda p: ".".join(map(str, p)))
def test_no_changed_value_of_a_record_passes(tmp_path: Path, place: tuple[Any, ...]) -> None:
    path = tmp_path / "records.jsonl"
    whole = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in LINES)
    for value in WRONG:
        text = with_(place, value, 3)
        path.write_text(text)
        if text != whole:
            with pytest.raises(
                RobustsegError, match=r"^expected line 2 of .*records.jsonl as it was written, got .*; try"
            ):
                read_records(path)


@pytest.mark.parametrize("place", list(places({**LINES[1], "schema": 2})), ids=lambda p: ".".join(map(str, p)))
def test_a_changed_record_without_a_digest_is_refused_or_read(tmp_path: Path, place: tuple[Any, ...]) -> None:
    """Records of earlier schemas have no digest: what is read must at least be a record with which every figure can be made."""
    if place == ("digest",):
        return
    path, shown, refusals = tmp_path / "records.jsonl", set[str](), list[str]()
    good = runs.write(tmp_path / "good", [runs.record("zoo:a", "clean", 0.1, n=2)])
    for value in WRONG:
        path.write_text(with_(place, value, 2))
        try:
            records = read_records(path)
            kind = value if isinstance(value, str) and not value.isprintable() else type(value).__name__
            if kind not in shown:  # a page takes a while
                shown.add(kind)
                page(records)
            compare(read_records(good), records)
        except RobustsegError as error:
            refusals.append(str(error))
    assert all("expected" in said and "; try" in said for said in refusals)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line["counts"]["tp"][0].__setitem__(0, line["counts"]["tp"][0][0] + 1),
        lambda line: line["counts"]["ids"].__setitem__(0, line["counts"]["ids"][1]),
        lambda line: line["counts"]["confusion"][0].__setitem__(-1, 10**15),
        lambda line: line["scores"]["rms"].append(0.1),
        lambda line: line["scores"]["agreement"].__setitem__(0, 1.5),
        lambda line: line["verdicts"].update(attacked=[]),
        lambda line: line["label_space"]["names"].append("one more"),
        lambda line: line["label_space"]["palette"][0].__setitem__(0, 256),
        lambda line: line.update(kind="other", perturbation="of another package"),
        lambda line: line.update(flags={"a": DEEP}),
        lambda line: line.update(network=""),
        lambda line: line.update(budget={"norm": "l3", "eps": 1}),
        lambda line: line.update(seconds=None),
        lambda line: line.update(size=[0, 5]),
    ],
)
def test_counts_that_do_not_add_up_are_refused_without_a_digest_too(tmp_path: Path, change: Any) -> None:
    line = {**{key: value for key, value in copy.deepcopy(LINES[1]).items() if key != "digest"}, "schema": 2}
    (tmp_path / "records.jsonl").write_text(json.dumps(line) + "\n")
    assert "1 of 1 records were measured before records kept digests of themselves" in page(read_records(tmp_path))
    change(line)
    (tmp_path / "records.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(RobustsegError, match="expected line 1 of"):
        read_records(tmp_path)


def test_every_command_refuses_a_damaged_record(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    data = "streets(scenes=1, frames=1, size='16x32')"
    measure = ("evaluate", "--network", "zoo:erfnet-streets", "--data", data, "--device", "cpu", "--out", str(folder))
    run(*measure)
    path = folder / "records.jsonl"
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    for words in (
        ("report", str(folder)),
        ("compare", str(folder), str(folder)),
        ("audit", str(folder), "--device", "cpu"),
        ("reproduce", "arnab2018", "--tier", "synthetic", "--from-records", str(folder)),
        measure,
    ):
        said = run(*words, code=2)
        assert "expected line 1 of" in said
        assert "as it was written" in said


def test_a_torn_last_record_is_measured_again_and_not_left_out_of_a_report(tmp_path: Path) -> None:
    folder = runs.write(tmp_path / "run", runs.run(("zoo:a",), n=2)[:2])
    path = folder / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert "half of one" in run("report", str(folder), code=2)
