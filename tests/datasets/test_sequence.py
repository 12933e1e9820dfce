"""Image files as the frames of a sequence: 2 comes before 10, and an order that names leave open is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustseg.core.errors import RobustsegError
from robustseg.datasets.files import images_in, natural
from robustseg.datasets.frames import Frames
from robustseg.datasets.sequence import images_at
from robustseg.datasets.triplets import clip
from robustseg.datasets.video import read_frames

ORDERS = {
    "no zeros": ["1.png", "2.png", "3.png", "10.png", "11.png", "100.png"],
    "after a word": ["frame_1.png", "frame_2.png", "frame_10.png", "frame_100.png"],
    "two numbers": ["a1_9.png", "a1_10.png", "a2_1.png", "a10_1.png"],
    "zeros": ["0001.png", "0009.png", "0010.png"],
    "mixed zeros": ["frame_01.png", "frame_1.png", "frame_002.png", "frame_3.png"],
    "mixed case": ["IMG_1.png", "img_2.PNG", "IMG_10.png"],
    "Arabic digits": ["\u0661.png", "\u0662.png", "\u0661\u0660.png"],
    "long numbers": ["1403636579763555584.png", "1403636579763555585.png", "14036365797635555840.png"],
    "equal fractions": ["9.50.png", "10.25.png", "10.50.png"],
    "suffixes": ["1.png", "2.jpg", "10.png"],
    "signs": ["1.png", "-1.png", "-2.png"],
}


def save(folder: Path, names: list[str]) -> Path:
    """Each name with a picture of its place in the list."""
    folder.mkdir()
    for i, name in enumerate(names):
        Image.fromarray(np.full((4, 6, 3), 20 * i, np.uint8)).save(folder / name, "PNG")
    return folder


@pytest.mark.parametrize("how", ORDERS)
def test_names_are_in_natural_order_in_any_folder(tmp_path: Path, how: str) -> None:
    names = ORDERS[how]
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(names).tolist()
        assert [p.name for p in sorted(map(Path, shuffled), key=natural)] == names
    folder = save(tmp_path / "drive", names)
    assert [p.name for p in images_in(folder)] == names
    assert [p.name for p in images_at(folder).paths] == names


def test_frames_clips_patterns_and_streams_follow_it(tmp_path: Path) -> None:
    folder = save(tmp_path / "drive", [f"{i}.png" for i in range(12)])

    def level(image: object) -> int:
        return round(float(image.mean()) * 255 / 20)  # type: ignore[attr-defined]

    for spec in (str(folder), f"{folder}/*.png"):
        data = Frames(spec)
        assert [level(data[i].image) for i in range(12)] == list(range(12))
        assert data.ids[2] == "drive_2"
        samples = [clip(spec)[i] for i in range(10)]
        assert [level(s.image) for s in samples] == list(range(1, 11))
        assert [level(s.extras["next"]) for s in samples] == list(range(2, 12))
    assert [level(frame.image) for frame in read_frames(folder)] == list(range(12))


def test_points_that_could_be_decimal_points_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "seconds", ["0.08.png", "0.12.png", "0.2.png"])
    for read in (lambda: Frames(str(folder)), lambda: next(read_frames(folder))):
        with pytest.raises(
            RobustsegError, match=r"expected names that tell the order.*got '0.2.png' and '0.08.png'.*try"
        ):
            read()


def test_one_name_twice_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    folder = save(tmp_path / "drive", ["a.jpg", "a.k.png", "a.png"])
    with pytest.raises(RobustsegError, match=r"expected one image a name in .*, got 'a' twice"):
        Frames(str(folder))
