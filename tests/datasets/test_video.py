"""Frames from video files and folders: in order, one at a time, and what cannot be read says why."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustseg.core.errors import DatasetNotFound, MissingExtra, RobustsegError
from robustseg.datasets.video import read_frames

FRAMES, KEY_EVERY = 24, 6


def grey_of(number: int) -> int:
    return 20 + 9 * number


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose frames are grey 20, 29, 38, … with some texture; its table of frames stands at the start."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    texture = np.random.default_rng(0).integers(-12, 13, (48, 64, 3))
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        options = {"crf": "12", "g": str(KEY_EVERY), "bf": "0", "preset": "ultrafast"}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(FRAMES):
            pixels = (grey_of(number) + texture).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_come_in_order_as_images(clip: Path) -> None:
    frames = list(read_frames(clip))
    assert [f.number for f in frames] == list(range(FRAMES))
    for frame in frames:
        assert frame.image is not None
        assert frame.image.shape == (3, 48, 64)
        assert frame.image.dtype == torch.float32
        assert 255 * float(frame.image.mean()) == pytest.approx(grey_of(frame.number), abs=4)


def test_a_video_that_breaks_off_gives_its_frames_and_says_so(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    frames = list(read_frames(tmp_path / "cut.mp4"))
    assert [f.number for f in frames] == list(range(len(frames)))
    assert 5 < len(frames) < FRAMES
    assert all(f.image is not None for f in frames[:5])
    assert frames[-1].image is None
    assert f"of its {FRAMES} frames" in frames[-1].problem


def test_a_damaged_frame_is_told_and_the_stream_goes_on(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    av = pytest.importorskip("av")
    with av.open(str(clip)) as container:
        packet = [p for p in container.demux(video=0) if p.size][8]
    data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "damaged.mp4").write_bytes(data)
    frames = list(read_frames(tmp_path / "damaged.mp4"))
    bad = [f.number for f in frames if f.image is None]
    assert bad
    assert min(bad) == 8
    assert all(f.problem for f in frames if f.image is None)
    # whole again from the next key frame on
    later = [f for f in frames if f.number >= 12]
    assert len(later) == FRAMES - 12
    for frame in later:
        assert 255 * float(frame.image.mean()) == pytest.approx(grey_of(frame.number), abs=4)


def film(path: Path, codec: str, options: dict[str, str]) -> bytes:
    """Eight frames of moving noise."""
    av = pytest.importorskip("av")
    texture = np.random.default_rng(0).integers(0, 100, (32, 48, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(np.roll(texture, 4 * number, 1) + np.uint8(10 * number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def test_what_the_decoder_makes_of_a_broken_frame_is_no_picture(tmp_path: Path) -> None:
    """One bit of a B-frame is flipped: the decoder raises, and then gives the frame as if nothing had happened."""
    data = film(tmp_path / "whole.mpg", "mpeg2video", {"bf": "2", "g": "5"})
    whole = [frame.image for frame in read_frames(tmp_path / "whole.mpg")]
    lost = 0
    for at in range(1200, 2400, 50):
        (tmp_path / "torn.mpg").write_bytes(data[:at] + bytes([data[at] ^ 2]) + data[at + 1 :])
        found = [frame.image for frame in read_frames(tmp_path / "torn.mpg")]
        if None in found:  # the decoder noticed
            lost += 1
            assert all(any(torch.equal(image, other) for other in whole) for image in found if image is not None)
    assert lost > 5


def test_damage_that_only_a_decoder_without_threads_notices_is_told(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    data = film(tmp_path / "whole.h264", "libx264", {"bf": "2", "g": "5"})
    path, noticed = tmp_path / "torn.h264", 0
    for at in range(640, len(data), 40):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with av.open(str(path)) as container, contextlib.suppress(av.FFmpegError):
            container.streams.video[0].thread_type = "NONE"
            if any(frame.is_corrupt for frame in container.decode(video=0)):
                noticed += 1
                assert any(frame.image is None for frame in read_frames(path)), at
    assert noticed > 10


def test_a_video_whose_texts_are_not_utf_8_is_read(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    (tmp_path / "latin.mp4").write_bytes(data.replace(b"Lavf", b"\xe9avf"))
    assert b"\xe9avf" in (tmp_path / "latin.mp4").read_bytes()
    assert len(list(read_frames(tmp_path / "latin.mp4"))) == FRAMES


def test_a_folder_gives_its_images_by_name_and_an_unreadable_one_says_why(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (8, 6), (50 * number,) * 3).save(tmp_path / f"{number:03}.png")
    (tmp_path / "001.png").write_bytes(b"no image")
    first, second, third = read_frames(tmp_path)
    assert float(first.image.max()) == 0
    assert second.image is None
    assert "001.png" in second.problem
    assert float(third.image.min()) == pytest.approx(100 / 255)


def test_nothing_there_and_no_video_are_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="got nothing"):
        next(read_frames(tmp_path / "none.mp4"))
    with pytest.raises(DatasetNotFound, match="expected images"):
        next(read_frames(tmp_path))
    pytest.importorskip("av")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(RobustsegError, match="expected a video"):
        next(read_frames(tmp_path / "text.mp4"))


def test_without_pyav_the_install_line_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(MissingExtra, match=r"pip install 'robustseg\[video\]'"):
        next(read_frames(tmp_path / "clip.mp4"))
