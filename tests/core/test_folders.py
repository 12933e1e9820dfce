"""Whose folder it is: nothing is replaced that the same command did not write."""

from pathlib import Path

import pytest

from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line
from robustseg.core.folders import claim, require_own, result_in

ABOUT = {"network": "a", "size": (2, 3)}


def test_a_new_folder_is_claimed_and_known_again(tmp_path: Path) -> None:
    head = tmp_path / "result.json"
    assert result_in(head, ABOUT, ["image.png"]) is None
    assert not head.exists()
    assert claim(head, ABOUT, ["image.png"]) == {}
    assert result_in(head, ABOUT, ["image.png"]) == {}
    head.write_text(json_line({"about": ABOUT, "loss": 1}))
    assert claim(head, ABOUT, ["image.png"]) == {"loss": 1}


def test_files_of_other_names_stay_beside_it(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"mine")
    claim(tmp_path / "result.json", ABOUT, ["image*.png"])
    assert (tmp_path / "holiday.png").read_bytes() == b"mine"


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "image-3.png").write_bytes(b"mine")
    with pytest.raises(
        RobustsegError, match=r"expected a new folder or one with result\.json, got 'deep/image-3\.png'"
    ):
        claim(tmp_path / "result.json", ABOUT, ["sheet.png", "deep/image-*.png"])
    assert not (tmp_path / "result.json").exists()
    with pytest.raises(RobustsegError, match="of something else"):
        require_own(tmp_path / "records.jsonl", ["deep/*"])


WHOLE = json_line({"about": ABOUT})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json_line({"about": 1}), 2 * WHOLE, WHOLE.replace('"a"', '"b"'), "text", b"\xff\xfe"]
)
def test_a_head_of_something_else_is_refused(tmp_path: Path, text: str | bytes) -> None:
    head = tmp_path / "result.json"
    head.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RobustsegError, match=r"as (a run wrote it|it was written), got"):
        claim(head, ABOUT, [])


def test_another_result_is_named_and_refused_once_something_is_there(tmp_path: Path) -> None:
    head, other = tmp_path / "result.json", {**ABOUT, "network": "b"}
    claim(head, ABOUT, ["image.png"])
    claim(head, other, ["image.png"])  # nothing was made for the first
    (tmp_path / "image.png").touch()
    with pytest.raises(RobustsegError, match=r"expected network 'b' of the run in .*, got 'a'; try another folder"):
        claim(head, ABOUT, ["image.png"])
    with pytest.raises(RobustsegError, match=r"expected seed None of the run in .*, got 1; try another folder"):
        claim(head, {**other, "seed": 1}, ["image.png"])
    (tmp_path / "image.png").unlink()
    head.write_text(json_line({"about": other, "loss": 1}))
    with pytest.raises(RobustsegError, match=r"expected size \[2, 3\] of the run in .*, got None"):
        result_in(head, {"network": "b"}, ["image.png"])
