"""Records: what is written reads back equal, and a key names one measurement."""

import dataclasses
import hashlib
import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.files import append_line, json_line
from robustseg.core.labels import LabelSpace
from robustseg.results.record import IDENTITY, Counts, Record, read_records

SPACE = LabelSpace(("road", "car"), ((1, 2, 3), (4, 5, 6)))


def counts(*ids: str, value: int = 1) -> Counts:
    """Each image has `value` right pixels of each class, as many that are taken for the other one, and for none."""
    rows = np.full((len(ids), 2), value, np.int64)
    return Counts(ids, np.full((2, 3), value * len(ids), np.int64), rows, rows, 2 * rows)


def record(**changes: object) -> Record:
    plain = {
        "network": "zoo:a",
        "source": "zoo:b",
        "data": "streets",
        "perturbation": "pgd(budget='linf:8/255')",
        "label_space": SPACE,
        "counts": counts("s_1", "s_2"),
        "scores": {"rms": [0.1, math.nan]},
        "verdicts": {"monitor": ["alarm", "quiet"]},
        "flags": {"zero_gradients": 0.25},
        "files": {"a.safetensors": "ab" * 32},
        "size": (4, 6),
        "commit": "c0ffee",
        "forwards": 7,
    }
    return Record(**{**plain, **changes})  # type: ignore[arg-type]


def test_a_record_reads_back_equal(tmp_path: Path) -> None:
    append_line(tmp_path / "records.jsonl", record().to_json())
    (back,) = read_records(tmp_path)
    assert back.counts == record().counts
    assert back.scores["rms"][0] == 0.1
    assert math.isnan(back.scores["rms"][1])
    assert json_line(back.to_json()) == json_line(record().to_json())
    assert (back.size, back.label_space, back.ids) == ((4, 6), SPACE, ("s_1", "s_2"))


def test_the_threat_model_is_data() -> None:
    given = record(perturbation="pgd(budget='linf: 0.03137254901960784', steps=5)").to_json()
    assert given["schema"] == 3
    assert given["budget"] == {"norm": "linf", "eps": 8 / 255, "region": None}
    assert (given["perturbation_name"], given["kind"]) == ("pgd", "attack")
    assert given["perturbation"] == "pgd(budget='linf:8/255', steps=5)"
    assert given["arguments"] == {"budget": "'linf:8/255'", "steps": "5"}
    noise = record(perturbation="gaussian(rms='4/255')", backwards=0)
    assert (noise.kind, noise.budget, noise.strength) == ("noise", None, "4/255")
    assert record(perturbation="clean").clean
    foreign = record(perturbation="of another package", backwards=3)
    assert (foreign.perturbation_name, foreign.kind) == ("of another package", "attack")


def test_what_another_package_named_stays_as_it_was_recorded() -> None:
    """The package that knows the name need not be installed where records are read."""
    line = record(perturbation="fog(severity=3)").to_json() | {"kind": "corruption", "perturbation_name": "fog"}
    assert Record.from_json(json.loads(json_line(line))).kind == "corruption"


@pytest.mark.parametrize("spelling", ["linf: 8/255", "linf:0.03137254901960784", "linf:8.0/255"])
def test_one_budget_has_one_key_however_it_is_spelled(spelling: str) -> None:
    plain, other = (record(perturbation=f"pgd(budget='{b}')") for b in ("linf:8/255", spelling))
    assert other.key == plain.key


def test_changed_images_or_code_are_another_measurement() -> None:
    keys = {record().key, *(record(**{name: "ab"}).key for name in ("content", "code", "source_code"))}
    assert len(keys) == 4
    assert [record().verified, record(content="ab").verified] == [False, True]


COMMITTED = sorted((Path(__file__).parents[2] / "studies").rglob("records.jsonl"))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda f: "/".join(f.parts[-3:-1]))
def test_committed_records_of_schema_1_are_migrated(file: Path) -> None:
    """The key is the one that audits and pictures name them by; the perturbation is described as data."""
    with open(file, encoding="utf-8") as told:
        lines = [json.loads(line) for line in islice(told, 12)]
    lines = [line for line in lines if "schema" not in line]
    assert lines
    for line, read in zip(lines, map(Record.from_json, lines), strict=True):
        identity = [line[name] for name in IDENTITY]
        old = json.dumps([identity, line["counts"]["ids"]], sort_keys=True)
        assert read.key == hashlib.sha256(old.encode()).hexdigest()[:16]
        assert not read.verified
        assert read.perturbation == line["perturbation"]
        assert read.clean == (line["perturbation"] == "clean")
        assert read.kind in ("clean", "noise", "attack")
        assert (read.budget is not None) == ("budget=" in line["perturbation"])
        assert Record.from_json(json.loads(json_line(read.to_json()))).key == read.key


def test_no_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match="no such file; try: robustseg evaluate"):
        read_records(tmp_path)
    (tmp_path / "records.jsonl").touch()
    with pytest.raises(RobustsegError, match="empty file"):
        read_records(tmp_path)


def test_another_schema_is_refused() -> None:
    with pytest.raises(RobustsegError, match="schema 1 to 3, got 4"):
        Record.from_json({"schema": 4})


def test_counts_add_up_and_refuse_other_classes() -> None:
    both = counts("a") + counts("b", value=3)
    assert both.ids == ("a", "b")
    assert both.tp.tolist() == [[1, 1], [3, 3]]
    assert both.confusion.tolist() == [[4] * 3] * 2
    assert Counts.empty(2) + both == both
    with pytest.raises(ShapeError, match="got 3 and 2"):
        Counts.empty(3) + both


def test_counts_of_wrong_shape_are_refused() -> None:
    none = np.zeros((1, 2), np.int64)
    with pytest.raises(ShapeError, match=r"expected confusion \[k, k \+ 1\]"):
        Counts(("a",), np.zeros((2, 2), np.int64), none, none, none)


def test_a_key_names_a_measurement_and_only_that() -> None:
    clean, attacked = record(perturbation="clean"), record()
    assert clean.key == dataclasses.replace(clean, seconds=9.0, started="later").key
    assert len({clean.key, attacked.key, dataclasses.replace(clean, weights="other").key}) == 3
    assert Record.from_json(json.loads(json_line(attacked.to_json()))).key == attacked.key
    assert clean.clean
    assert not attacked.clean
