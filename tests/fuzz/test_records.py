"""Records with one field edited, missing or doubled, torn and foreign lines, against the lines that were written."""

import copy
import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runs
from fuzz.harness import Edits, Refusal, answer, corpus, damaged, edits, examples, kept, tell
from robustseg.core.files import json_line
from robustseg.report import compare, page
from robustseg.results import metrics
from robustseg.results.record import read_records
from robustseg.results.summary import summary

pytestmark = pytest.mark.filterwarnings("ignore")  # hypothesis', of long inputs

WRONG = st.one_of(
    st.sampled_from(
        [None, "", "x", -1, 0, 1, 0.5, 10**30, True, [], {}, [1, 2, 3], [[1]], "\u202e<b>", math.nan, math.inf]
    ),
    st.integers(-5, 300),
    st.text(max_size=5),
)
FOREIGN = [b"{}", b"[]", b"null", b"3", b'"x"', b"[" * 5000, b'{"schema":2}', b"\xff\xfe{", b"", b"\x00", b"1" * 5000]
FOREIGN += [b'{"format":1,"check":"audit"}', b"{'schema': 2}"]


def _lines() -> list[bytes]:
    """A clean record and two perturbed ones of one network on three images, as a run writes them."""
    specs = {"clean": 0.1, "gaussian(rms='8/255')": 0.3, "pgd(budget='linf:8/255', steps=20)": 0.6}
    made = [runs.record("zoo:first", spec, share, rms=0.01, n=3) for spec, share in specs.items()]
    return [json_line(one.to_json()).encode() for one in made]


LINES = _lines()


@st.composite
def record_files(draw: st.DrawFn) -> bytes:
    """What `records.jsonl` may hold after an editor, another version or a full disk."""
    lines, at = list(LINES), draw(st.integers(0, len(LINES) - 1))
    how = draw(
        st.sampled_from(
            ["edit", "edit", "edit", "near", "remove", "double", "again", "foreign", "torn", "bytes", "swap"]
        )
    )
    if how in ("edit", "near", "remove", "double"):
        lines[at] = _edited(draw, json.loads(lines[at]), how)
    elif how == "again":
        lines.insert(draw(st.integers(0, len(lines))), lines[at])
    elif how == "foreign":
        lines.insert(at, draw(st.one_of(st.sampled_from(FOREIGN), st.binary(max_size=20))) + b"\n")
    elif how == "swap":
        lines.insert(0, lines.pop(at))
    whole = b"".join(lines)
    if how == "torn":
        return whole[: draw(st.integers(0, len(whole)))]
    done: Edits = draw(edits) if how == "bytes" else []
    return damaged(whole, done)


def _edited(draw: st.DrawFn, data: dict[str, Any], how: str) -> bytes:
    """The line with one field, at any depth, edited, changed a little, removed or there twice."""
    place: Any = data
    key: Any = draw(st.sampled_from(sorted(data)))
    while isinstance(place[key], (dict, list)) and place[key] and draw(st.integers(0, 3)):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    before = copy.deepcopy(place[key])
    if how == "remove":
        del place[key]
    elif how == "double" and isinstance(place, dict):
        place["DOUBLE"] = draw(st.one_of(st.just(before), WRONG))
        return json.dumps(data).replace('"DOUBLE"', json.dumps(key)).encode() + b"\n"
    elif how == "near" and isinstance(before, (int, float)):
        place[key] = before + draw(st.sampled_from([1, -1, 0.25]))
    else:
        place[key] = draw(WRONG)
    if draw(st.booleans()):  # as whoever knows how a line is sealed would write it
        data.pop("digest", None)
        return json_line(data).encode()
    return json.dumps(data).encode() + b"\n"


@given(data=record_files())
@examples(100)
def test_records(data: bytes, tmp_path: Path, tally: Counter[str]) -> None:
    with kept("records", data, ".jsonl"):
        tell(tally, check(data, tmp_path))


@corpus("records")
def test_records_that_failed_once(path: Path, tmp_path: Path) -> None:
    check(path.read_bytes(), tmp_path)


def check(data: bytes, folder: Path) -> bool:
    """Whether a file of records is accepted; if so each is as it was written, or sealed anew, and has its own figures."""
    path = folder / "records.jsonl"
    path.write_bytes(data)
    records = answer(lambda: read_records(path))
    if isinstance(records, Refusal):
        return False
    written = [json.loads(line) for line in LINES]
    whole = [line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    assert len(records) == len(whole), f"expected {len(whole)} records, got {len(records)}"
    for record, line in zip(records, whole, strict=True):
        content = json.loads(line, object_pairs_hook=_once)
        assert content in written or _sealed(line), f"expected the edited line to be refused: {line[:80]!r}"
        counts = content["counts"]
        assert metrics.miou(record.counts) == pytest.approx(_miou(counts))
        assert list(record.ids) == counts["ids"]
    for use in (lambda: page(records), lambda: summary(records), lambda: compare(read_records(path), records)):
        answer(use)
    return True


def _sealed(line: bytes) -> bool:
    """Whether a line ends with the digest of what stands before it."""
    before, mark, after = line.strip().rpartition(b'"digest":"')
    return bool(mark) and after == hashlib.sha256(before).hexdigest()[:16].encode() + b'"}'


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "expected a key twice to be refused"
    return dict(pairs)


def _miou(counts: dict[str, Any]) -> float:
    """Pooled mIoU of the classes that have a labelled pixel, from the confusion matrix alone."""
    confusion = np.array(counts["confusion"])
    ratios = []
    for k, row in enumerate(confusion):
        if row.sum():
            ratios.append(row[k] / (row.sum() + confusion[:, k].sum() - row[k]))
    return float(np.mean(ratios)) if ratios else math.nan
