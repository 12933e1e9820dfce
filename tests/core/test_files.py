"""Files of lines and whole files: crashes and full disks leave nothing half-written."""

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from robustseg.core.errors import RobustsegError
from robustseg.core.files import (
    append_line,
    file_name,
    json_line,
    on_disk,
    read_json,
    read_lines,
    sole_writer,
    write_whole,
)


def test_nan_is_null_in_the_file_and_never_zero() -> None:
    line = json_line({"a": [math.nan, math.inf, 1.5], "b": {"c": -math.inf}})
    assert line.startswith('{"a":[null,null,1.5],"b":{"c":null},"digest":"')


def test_a_torn_last_line_is_left_out_and_cut_away_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_line(path, {"n": 1})
    with open(path, "ab") as file:
        file.write(b'{"n": 2, "half')
    assert list(read_lines(path, torn=True)) == [{"n": 1}]
    with pytest.raises(RobustsegError, match=r"line 2 of .*half of one"):
        list(read_lines(path))
    append_line(path, {"n": 3})
    assert path.read_text() == json_line({"n": 1}) + json_line({"n": 3})


def test_a_file_of_one_torn_line_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"x" * 200_000)  # longer than the piece that is searched at once
    append_line(path, {"n": 1})
    assert path.read_text() == json_line({"n": 1})


def test_a_complete_line_that_is_no_json_names_its_number(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(json_line({"n": 1}) + "nonsense\n")
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
    assert path.read_text() == json_line({"n": 1})
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


def test_a_line_without_its_last_break_is_whole(tmp_path: Path) -> None:
    """An editor may take the break away; nothing is lost by that."""
    path = tmp_path / "records.jsonl"
    path.write_text(json_line({"n": 1}).rstrip())
    assert list(read_lines(path)) == [{"n": 1}]
    append_line(path, {"n": 2})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 2}]


def test_what_an_editor_adds_around_lines_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + (json_line({"n": 1}) + "\n" * 100_000 + json_line({"n": 2})).encode())
    assert list(read_lines(path)) == [{"n": 1}, {"n": 2}]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert list(read_lines(path)) == [{"n": 1}, {"n": 2}]


LINE = json_line({"a": 1, "b": {"c": [0.5, None, "x"]}}).encode()


@pytest.mark.parametrize("position", range(len(LINE) - 1))
def test_no_changed_byte_of_a_line_passes(tmp_path: Path, position: int) -> None:
    path = tmp_path / "lines.jsonl"
    for byte in b'0x"\x00\xff':
        changed = bytearray(LINE)
        changed[position] = byte
        path.write_bytes(changed)
        if changed != LINE:
            with pytest.raises(RobustsegError, match=r"expected line 1 of .* as it was written"):
                list(read_lines(path))


DAMAGED = {
    "empty object": b"{}",
    "list": b"[]",
    "number": b"5",
    "half": b'{"a": 1, "b',
    "duplicate key": b'{"a":1,"a":2}',
    "NaN": b'{"a":NaN}',
    "infinite": b'{"a":1e999}',
    "huge": b'{"a":' + b"9" * 5000 + b"}",
    "nested": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no UTF-8": b'{"a":"\xff"}',
    "NUL": b'{"a":"\x00"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "no digest": b'{"a":1}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_lines_and_files_are_one_sentence(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(LINE + text + b"\n" + LINE)
    with pytest.raises(RobustsegError, match=r"expected line 2 of .*lines.jsonl as it was written, got .*; try"):
        list(read_lines(path))
    path.write_bytes(text)
    if text not in (b"{}", b'{"a":1}'):  # a whole file needs no digest
        with pytest.raises(RobustsegError, match=r"expected .*lines.jsonl as it was written, got .*; try"):
            read_json(path)


def test_lines_of_an_earlier_version_need_no_digest_but_must_not_have_a_wrong_one(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"old":1}\n' + json_line({"old": 0}))
    assert [line["old"] for line in read_lines(path, unsealed=lambda data: data["old"] == 1)] == [1, 0]
    path.write_text('{"old":1,"digest":"0000000000000000"}\n')
    with pytest.raises(RobustsegError, match="digest"):
        list(read_lines(path, unsealed=lambda data: True))


NAMES = (
    *(
        "a",
        "A",
        "cam 1",
        "cam_1",
        "cam/1",
        "cam%201",
        "cam.1",
        "日",
        "月",
        "é",
        "e\u0301",
        "",
        ".",
        "..",
        ".a",
        "a.",
        "a ",
        " a",
    ),
    *(
        "con",
        "con.png",
        "CON",
        "lpt1",
        "x" * 119,
        "x" * 300,
        "x" * 301,
        "a\x00b",
        "a\nb",
        "\udcff",
        "../a",
        "C:\\a",
        "a:b",
        "-",
        "~",
    ),
    *("sequence_1/0001", "sequence_1_0001", "SEQUENCE_1_0001"),
)


def test_names_of_files_never_collide_and_are_names_everywhere(tmp_path: Path) -> None:
    names = [*NAMES, *map(file_name, NAMES)]  # a name may also be an id
    made = {text: file_name(text, ".png") for text in dict.fromkeys(names)}
    assert len({name.casefold() for name in made.values()}) == len(made)
    for name in made.values():
        assert name.isascii()
        assert len(name) <= 124
        assert not set(name) & set('/\\:*?"<>| \x00')
        assert name[0] not in ".-~"
        (tmp_path / name).touch()
    assert len(list(tmp_path.iterdir())) == len(made)
    assert made["cam_1"] == "cam_1.png", "an ordinary id is its own name"
    assert made["cam 1"].startswith("cam_1-"), "others stay readable"


def test_a_long_spec_is_no_path(tmp_path: Path) -> None:
    assert on_disk(str(tmp_path)) == tmp_path
    for text in ("x" * 100_000, "a\x00b", str(tmp_path / "nothing"), "weights('" + "y" * 300 + "')"):
        assert on_disk(text) is None


def elsewhere(call: Callable[[], object]) -> BaseException | None:
    """What a call raises in another thread."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except RobustsegError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def write_alone(folder: Path) -> None:
    with sole_writer(folder):
        pass


def test_one_writer_a_folder_who_may_ask_again(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        with sole_writer(tmp_path / "."), sole_writer(tmp_path):
            pass
        assert "another run that writes there" in str(elsewhere(lambda: write_alone(tmp_path)))
        assert elsewhere(lambda: write_alone(tmp_path / "inner")) is None
    assert elsewhere(lambda: write_alone(tmp_path)) is None


def test_a_writer_that_fails_gives_the_folder_up_and_leaves_no_empty_one(tmp_path: Path) -> None:
    def fail(name: str) -> None:
        with sole_writer(tmp_path / name):
            (tmp_path / "old").mkdir(exist_ok=True)
            raise ZeroDivisionError

    for name in ("new", "old"):
        with pytest.raises(ZeroDivisionError):
            fail(name)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert elsewhere(lambda: write_alone(tmp_path / "old")) is None


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def none(*_: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with sole_writer(tmp_path):
        pass
    assert "cannot be locked (No locks available)" in caplog.text
