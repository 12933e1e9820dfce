"""Records: what is written reads back equal, and a key names one measurement."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.files import append_line, json_line
from robustseg.core.labels import LabelSpace
from robustseg.results.record import Counts, Record, read_records

SPACE = LabelSpace(("road", "car"), ((1, 2, 3), (4, 5, 6)))


def counts(*ids: str, value: int = 1) -> Counts:
    rows = np.full((len(ids), 2), value, np.int64)
    return Counts(ids, np.full((2, 3), value * len(ids), np.int64), rows, rows + 1, rows + 2)


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


def test_no_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match="no such file; try: robustseg evaluate"):
        read_records(tmp_path)
    (tmp_path / "records.jsonl").touch()
    with pytest.raises(RobustsegError, match="empty file"):
        read_records(tmp_path)


def test_another_format_is_refused() -> None:
    with pytest.raises(RobustsegError, match="format 1, got 2"):
        Record.from_json({"format": 2})


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
