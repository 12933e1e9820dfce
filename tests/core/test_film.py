"""Films: every picture comes back, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustseg.core import film
from robustseg.core.errors import MissingExtra, RobustsegError
from robustseg.core.film import write_film
from robustseg.datasets.video import read_frames

PICTURES = [np.full((21, 31, 3), 40 * i, np.uint8) for i in range(5)]


def test_a_gif_holds_every_picture(tmp_path: Path) -> None:
    write_film(tmp_path / "film.gif", PICTURES)
    with Image.open(tmp_path / "film.gif") as read:
        assert read.n_frames == 5
        durations = []
        for number in range(5):
            read.seek(number)
            durations.append(read.info["duration"])
            assert abs(int(np.asarray(read.convert("RGB")).mean()) - 40 * number) <= 1
    assert durations[-1] == 1990 or durations[-1] == 2000  # in hundredths of a second
    assert durations[0] < 100
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]


def test_an_mp4_holds_every_picture_and_an_odd_row_is_cut(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_film(tmp_path / "film.mp4", PICTURES, rate=10)
    frames = [frame.image for frame in read_frames(tmp_path / "film.mp4")]
    assert len(frames) == 5 + 19
    assert frames[0] is not None
    assert frames[0].shape == (3, 20, 30)
    assert [round(float(f.mean()) * 255 / 40) for f in frames[:5] if f is not None] == [0, 1, 2, 3, 4]


def test_what_is_no_film_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RobustsegError, match="expected a film of gif or mp4, got 'avi'"):
        write_film(tmp_path / "film.avi", PICTURES)
    with pytest.raises(RobustsegError, match="expected pictures"):
        write_film(tmp_path / "film.gif", [])

    def missing() -> None:
        raise MissingExtra("av", "video")

    monkeypatch.setattr(film, "load_av", missing)
    with pytest.raises(MissingExtra, match=r"robustseg\[video\]"):
        write_film(tmp_path / "film.mp4", PICTURES)
    assert not list(tmp_path.iterdir())
