"""Records, findings and watched streams with a field edited, missing or doubled, torn and foreign lines, against the lines
that were written."""

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
from fuzz.harness import Refusal, answer, corpus, damaged, edits, examples, kept, tell
from robustseg.core.files import json_line
from robustseg.report import compare, page
from robustseg.report.timeline import read_timeline, write_timeline
from robustseg.results import metrics
from robustseg.results.findings import Finding, read_findings
from robustseg.results.record import Record, read_records
from robustseg.results.summary import summary

pytestmark = pytest.mark.filterwarnings("ignore")  # hypothesis', of long inputs

WRONG = st.one_of(
    st.sampled_from(
        [None, "", "x", -1, 0, 1, 0.5, 10**30, True, [], {}, [1, 2], [[1]], "\u202e<b>", math.nan, math.inf]
    ),
    st.integers(-5, 300),
    st.text(max_size=5),
)
FOREIGN = [b"{}", b"[]", b"null", b"3", b'"x"', b"[" * 5000, b'{"schema":2}', b"\xff\xfe{", b"", b"\x00", b"1" * 5000]
FOREIGN += [b'{"format":1,"check":"audit"}', b"{'schema': 2}"]
SPECS = {"clean": 0.1, "gaussian(rms='8/255')": 0.3, "pgd(budget='linf:8/255', steps=20)": 0.6}
SEEN = {"attacked": "none", "failed": [], "alarm": "", "up": 0.0, "down": 0.0, "injected": False, "latency": 0.1}
WRITTEN: dict[str, list[dict[str, Any]]] = {
    "records.jsonl": [runs.record("zoo:first", spec, share, rms=0.01, n=3).to_json() for spec, share in SPECS.items()],
    "audit.jsonl": [
        Finding(check, "ok", "zoo:first", "s", numbers={"miou": 0.5}, ids=("a",)).to_json() for check in ("x", "y")
    ],
    "stream.json": [{"format": 2, "source": "x", "quiet": 2, "attack": {"target": "teacher", "first": 2, "end": 3}}],
    "frames.jsonl": [
        {"frame": 0, "problem": "torn"},
        *({"frame": i, "score": 0.1, **SEEN, "seconds": 0.2, "agreement": 0.9} for i in (1, 2)),
    ],
    "events.jsonl": [
        {"frame": 1, "kind": "quiet", "limits": {"lower": 0.0, "upper": 0.2, "decision": 1.0}},
        {"frame": 2, "kind": "alarm", "member": "teacher", "score": 0.5, "latency": 0.1, "reason": "x"},
    ],
}
LINES = {name: [json_line(data).encode() for data in lines] for name, lines in WRITTEN.items()}


@st.composite
def line_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(name, content): what a file of lines may hold after an editor, another version or a full disk."""
    name = draw(st.sampled_from(["records.jsonl", "records.jsonl", *LINES]))
    lines = list(LINES[name])
    at = draw(st.integers(0, len(lines) - 1))
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
        return name, whole[: draw(st.integers(0, len(whole)))]
    return name, damaged(whole, draw(edits)) if how == "bytes" else whole


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


@given(drawn=line_files())
@examples(200)
def test_records(drawn: tuple[str, bytes], tmp_path: Path, tally: Counter[str]) -> None:
    name, data = drawn
    with kept("records", data, f"-{name}"):
        tell(tally, check(name, data, tmp_path))


@corpus("records")
def test_records_that_failed_once(path: Path, tmp_path: Path) -> None:
    check(path.name.rpartition("-")[2], path.read_bytes(), tmp_path)


def check(name: str, data: bytes, folder: Path) -> bool:
    """Whether a file of lines is accepted; if so each is as it was written, or sealed anew, and records have its figures."""
    for other, lines in LINES.items():
        (folder / other).write_bytes(data if other == name else b"".join(lines))
    read = {"records.jsonl": read_records, "audit.jsonl": read_findings}.get(name, read_timeline)
    found = answer(lambda: read(folder))
    if isinstance(found, Refusal):
        return False
    whole = [line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    if read is read_timeline and not data.endswith(b"\n") and whole and not _sealed(whole[-1]):
        whole.pop()  # a stream that goes on while it is looked at
    contents = [json.loads(line, object_pairs_hook=_once) for line in whole]
    written = [json.loads(line) for line in LINES[name]]
    for line, content in zip(whole, contents, strict=True):
        assert content in written or _sealed(line), f"expected the edited line to be refused: {line[:80]!r}"
    if read is read_records:
        _check_figures(found, contents)
        for use in (lambda: page(found), lambda: summary(found), lambda: compare(read_records(folder), found)):
            answer(use)
    elif read is read_findings:
        answer(lambda: page(read_records(folder), (), found))
    else:
        assert name != "frames.jsonl" or found.frames == len(contents)
        answer(lambda: write_timeline(folder))
    return True


def _check_figures(records: list[Record], contents: list[dict[str, Any]]) -> None:
    assert len(records) == len(contents), f"expected {len(contents)} records, got {len(records)}"
    for record, content in zip(records, contents, strict=True):
        confusion = np.array(content["counts"]["confusion"])
        ratios = [row[k] / (row.sum() + confusion[:, k].sum() - row[k]) for k, row in enumerate(confusion) if row.sum()]
        miou = float(np.mean(ratios)) if ratios else math.nan
        assert metrics.miou(record.counts) == pytest.approx(miou, nan_ok=True)
        assert list(record.ids) == content["counts"]["ids"]


def _sealed(line: bytes) -> bool:
    """Whether a line ends with the digest of what stands before it."""
    before, mark, after = line.strip().rpartition(b'"digest":"')
    return bool(mark) and after == hashlib.sha256(before).hexdigest()[:16].encode() + b'"}'


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "expected a key twice to be refused"
    return dict(pairs)
