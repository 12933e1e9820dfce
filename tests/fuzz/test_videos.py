"""Videos of several containers and codecs, whole and damaged, frame by frame against sequential decoding."""

import contextlib
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuzz.harness import Edits, Refusal, answer, corpus, damaged, edits, examples, kept, tell
from robustseg.datasets.frames import frames_at
from robustseg.datasets.video import read_frames

pytestmark = pytest.mark.filterwarnings("ignore")  # hypothesis', of long inputs
av = pytest.importorskip("av")


class Film(NamedTuple):
    """How one film is written: 8 frames, moving noise."""

    suffix: str
    codec: str
    options: dict[str, str] = {}  # noqa: RUF012  # never changed
    pixels: str = "yuv420p"
    irregular: bool = False
    turned: int = 0


B_FRAMES = {"bf": "2", "g": "5"}
FILMS = (
    *(Film(suffix, "libx264", B_FRAMES) for suffix in ("mp4", "mkv", "mov", "avi", "ts", "h264", "flv")),
    *(Film(suffix, "mpeg4", B_FRAMES) for suffix in ("avi", "mp4", "m4v")),
    *(Film(suffix, "mpeg2video", B_FRAMES) for suffix in ("ts", "mpg")),
    *(Film(suffix, "libx264", B_FRAMES, irregular=True) for suffix in ("mp4", "mkv")),
    *(Film("mp4", "libx264", B_FRAMES, turned=quarters) for quarters in (1, 2, 3)),
    Film("mp4", "libx264", {"bf": "0", "g": "1"}),
    Film("webm", "libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "6"}),
    Film("mkv", "ffv1"),
    Film("avi", "mjpeg", pixels="yuvj420p"),
    Film("avi", "huffyuv", pixels="yuv422p"),
    Film("gif", "gif", pixels="rgb8"),
)


def _written(film: Film, place: Path) -> bytes:
    path = place / f"film.{film.suffix}"
    texture = np.random.default_rng(0).integers(0, 200, (32, 48, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(film.codec, rate=10, options=film.options)
        stream.height, stream.width, stream.pix_fmt = 32, 48, film.pixels
        ticks = 10 if film.irregular else 1
        tick = stream.time_base = stream.codec_context.time_base = Fraction(1, 10 * ticks)
        for i in range(8):
            frame = av.VideoFrame.from_ndarray(np.roll(texture, 4 * i, 1) // 2 + np.uint8(10 * i), format="rgb24")
            frame.pts, frame.time_base = ticks * i + (i * i if film.irregular else 0), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    if film.turned:  # the matrix of the track's header: a, b, u, c, d, v of x' = ax + cy, y' = bx + dy
        at = data.index(b"tkhd") + 4 + 40
        a, b = ((0, 1), (-1, 0), (0, -1))[film.turned - 1]
        for offset, value in zip((0, 4, 12, 16), (a, b, -b, a), strict=True):
            data[at + offset : at + offset + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    return bytes(data)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all films, each written once and named by its number."""
    place = tmp_path_factory.mktemp("films")
    for number, film in enumerate(FILMS):
        (place / str(number)).write_bytes(_written(film, place))
    return place


@given(
    number=st.integers(0, len(FILMS) - 1),
    done=st.one_of(st.just([]), edits),
    order=st.lists(st.integers(0, 9), max_size=4),
)
@examples(200)
def test_videos(number: int, done: Edits, order: list[int], pool: Path, tmp_path: Path, tally: Counter[str]) -> None:
    film, whole = FILMS[number], (pool / str(number)).read_bytes()
    data = damaged(whole, done)
    path = tmp_path / f"film.{film.suffix}"
    path.write_bytes(data)
    with kept("videos", data, f".{film.suffix}"):
        accepted = check(path, order)
        assert accepted or data != whole, "expected a whole film to be read, got a refusal"
    tell(tally, accepted)


@corpus("videos")
def test_videos_that_failed_once(path: Path) -> None:
    check(path, [5, 0, 3])


def check(path: Path, order: list[int]) -> bool:
    """Whether a film is accepted; if so every frame, in order and out of order, is that of sequential decoding."""
    told = answer(lambda: list(read_frames(path)))
    wanted = _sequential(path)
    if not isinstance(told, Refusal):
        assert [frame.number for frame in told] == list(range(len(told)))
        images = [frame.image for frame in told]
        if None in images:  # the decoder begins anew after damage: fewer pictures, perhaps one twice, but no other ones
            assert all(any(_same(image, frame) for frame in wanted) for image in images if image is not None)
        else:
            assert len(images) == len(wanted), f"expected {len(wanted)} frames, got {len(images)}"
            assert all(map(_same, images, wanted)), "read_frames gives another picture"
    source = answer(lambda: frames_at(str(path)))
    if isinstance(source, Refusal):
        return False
    assert len(source) == len(wanted), f"expected {len(wanted)} frames, got {len(source)}"
    for number in [n for n in order if n < len(source)] + list(range(len(source))):
        image = answer(lambda number=number: source[number])  # type: ignore[misc]
        if not isinstance(image, Refusal):
            assert _same(image, wanted[number]), f"frame {number} is another picture"
    return True


def _same(image: torch.Tensor, frame: np.ndarray | None) -> bool:
    return frame is not None and torch.equal(image, torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 255)


def _sequential(path: Path) -> list[np.ndarray | None]:
    """All frames in the order of a player, upright; None for one that cannot be decoded or that is damaged."""
    found: list[np.ndarray | None] = []
    with (
        contextlib.suppress(av.FFmpegError, OSError, IndexError),
        av.open(str(path), metadata_errors="replace") as container,
    ):
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # with threads a decoder notices less damage
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                break
            except (av.FFmpegError, OSError):
                found.append(None)
                continue
            for frame in frames:
                pixels = None if frame.is_corrupt else frame.to_ndarray(format="rgb24")
                found.append(pixels if pixels is None else np.rot90(pixels, frame.rotation // 90))
    return found
