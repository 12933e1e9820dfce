"""Files of lines and whole files: crashes and full disks leave nothing half-written."""

import math
import os
from pathlib import Path

import pytest

from robustseg.core.errors import RobustsegError
from robustseg.core.files import append_line, json_line, read_lines, write_whole


def test_nan_is_null_in_the_file_and_never_zero() -> None:
    line = json_line({"a": [math.nan, math.inf, 1.5], "b": {"c": -math.inf}})
    assert line == '{"a":[null,null,1.5],"b":{"c":null}}\n'


def test_a_torn_last_line_is_left_out_and_cut_away_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_line(path, {"n": 1})
    with open(path, "ab") as file:
        file.write(b'{"n": 2, "half')
    assert list(read_lines(path)) == [{"n": 1}]
    append_line(path, {"n": 3})
    assert path.read_bytes() == b'{"n":1}\n{"n":3}\n'


def test_a_file_of_one_torn_line_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"x" * 200_000)  # longer than the piece that is searched at once
    append_line(path, {"n": 1})
    assert path.read_bytes() == b'{"n":1}\n'


def test_a_complete_line_that_is_no_json_names_its_number(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"n": 1}\nnonsense\n')
    with pytest.raises(RobustsegError, match=r"line 2 of .*try"):
        list(read_lines(tmp_path / "records.jsonl"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_gives_one_sentence() -> None:
    with pytest.raises(RobustsegError, match=r"expected to write /dev/full, got 'No space left on device'; try"):
        append_line(Path("/dev/full"), {"n": 1})


def test_a_full_disk_leaves_the_lines_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    append_line(path, {"n": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RobustsegError, match="No space left"):
        append_line(path, {"n": 2})
    with pytest.raises(RobustsegError, match="No space left"):
        write_whole(tmp_path / "summary.json", "[]")
    assert path.read_bytes() == b'{"n":1}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


def test_write_whole_keeps_the_old_file_until_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RobustsegError):
        write_whole(path, "new")
    assert path.read_text() == "old"
