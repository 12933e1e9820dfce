"""Frames of folders and videos: every pixel void, any order gives the same frames, and what is broken is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustseg.core import registry
from robustseg.core.errors import DatasetNotFound, MissingExtra, RobustsegError, SpecError
from robustseg.core.spaces import CITYSCAPES
from robustseg.datasets.frames import Frames
from robustseg.testing import check_dataset

COUNT, HEIGHT, WIDTH = 23, 32, 48


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "drive"
    place.mkdir()
    for i, name in enumerate(("b.jpg", "a.png", "c.png")):
        Image.fromarray(np.full((6 + i, 8, 3), 40 * i, np.uint8)).save(place / name)
    (place / "notes.txt").touch()
    return place


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame i is gray level 10 i; key frames at 0, 8 and 16, others lean on their neighbours."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "drive.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(
            "mpeg4", rate=10, options={"g": "8", "bf": "2", "qmin": "1", "qmax": "1", "sc_threshold": "1000000000"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(COUNT):
            values = np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        file.mux(stream.encode())
    return path


def gray(image: torch.Tensor) -> int:
    return round(float(image.mean()) * 25.5)


def test_a_folder_conforms_and_is_void(folder: Path) -> None:
    data = Frames(str(folder))
    check_dataset(data)
    assert data.ids == ("drive_a", "drive_b", "drive_c")
    assert all(bool((data[i].labels == 255).all()) for i in range(3))
    assert data[0].image.shape == (3, 7, 8)


def test_a_pattern_every_and_height(folder: Path) -> None:
    assert Frames(f"{folder}/*.png").ids == ("drive_a", "drive_c")
    assert Frames(str(folder), every=2).ids == ("drive_a", "drive_c")
    small = Frames(str(folder), height=3)[1]
    assert small.image.shape == (3, 3, 4)
    assert small.labels.shape == (3, 4)


def test_the_spec_rebuilds(folder: Path) -> None:
    for data in (Frames(str(folder)), Frames(str(folder), every=2, height=4, classes="cityscapes")):
        again = registry.build("data", data.spec)
        assert (again.spec, again.ids, again.height) == (data.spec, data.ids, data.height)
    assert again.label_space == CITYSCAPES


def test_a_video_conforms_and_reads_alike_in_any_order(video: Path) -> None:
    data = Frames(str(video))
    check_dataset(data)
    assert data.ids[:2] == ("drive_000000", "drive_000001")
    assert data.files == (video,)
    in_order = [data[i].image for i in range(len(data))]
    assert [gray(image) for image in in_order] == list(range(COUNT))
    order = np.random.default_rng(0).permutation(COUNT).tolist()
    assert all(torch.equal(data[i].image, in_order[i]) for i in order)
    assert [gray(s.image) for s in map(Frames(str(video), every=10).__getitem__, range(3))] == [0, 10, 20]


def test_a_cut_video_and_a_text_are_no_video(video: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.mp4"
    whole = video.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])  # its index, at the end, is lost
    with pytest.raises(RobustsegError, match=r"expected a video in .*torn.mp4.*try a complete file"):
        Frames(str(torn))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(RobustsegError, match="expected a video in"):
        Frames(str(tmp_path / "text.mp4"))


def test_what_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path, tmp_path / "none", tmp_path / "*.png", tmp_path / "none.mp4"):
        with pytest.raises(DatasetNotFound, match=r"expected images or a video at .*got none; try"):
            Frames(str(place))
    with pytest.raises(SpecError, match="expected every and height of at least 1, got 0 and None"):
        Frames(str(tmp_path), every=0)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(RobustsegError, match="expected one image a name"):
        Frames(str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(MissingExtra, match=r"pip install 'robustseg\[video\]'"):
        Frames(str(tmp_path / "clip.mp4"))


def test_real_clips(shared_data: Path) -> None:
    pytest.importorskip("av")
    clip = Frames(str(shared_data / "video" / "kitti_test984.mp4"), height=180)
    assert len(clip) == 268
    assert clip[30].image.shape == (3, 180, 596)
    gray_camera = Frames(str(shared_data / "video" / "kitti_odometry_06" / "image_0"), every=10)
    assert gray_camera.ids[1] == "image_0_000010"
    assert gray_camera[0].image.shape[0] == 3
