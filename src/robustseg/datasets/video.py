"""Frames of video files: in order, one at a time, or by number. Needs the extra `video` (PyAV).

The first video stream is read, covers aside. Frames are shown as a player shows them: in the order of showing, inside the
edit list, upright by the display matrix, with the colour matrix and range that the file names. They become 8-bit RGB, 10-bit
video rounded. Pixels that are not square and interlaced frames stay as they are stored. HDR (PQ or HLG) and transparent pixels
are refused, as what they look like depends on the screen and on what is behind. Damage is what the decoder reports: a change
that it takes for another picture (most of those in H.265, VP8, VP9 and FFV1) cannot be seen.
"""

import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustseg.core.errors import DatasetNotFound, RobustsegError
from robustseg.core.film import load_av
from robustseg.core.provenance import sha256
from robustseg.core.types import Dataset
from robustseg.datasets.sequence import images_at

HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions (ITU-T H.273) whose values are not those of an ordinary image."""

PLAYLISTS = ("hls", "concat", "dash", "imf")
"""Formats that name other files: those could change unnoticed, and a data set must not lead elsewhere."""


class Frame(NamedTuple):
    """One frame: its number from 0, the image (float32 `[3, h, w]` in [0, 1]), or None and why there is none."""

    number: int
    image: Tensor | None
    problem: str = ""


def read_frames(path: str | Path) -> Iterator[Frame]:
    """The frames of a video file, or of a folder of images in natural order; each call starts at the first.

    Memory does not grow with the length. A frame that cannot be read comes as a `Frame` without an image that says why,
    and the next one follows. A damaged frame of a video counts as one frame, and so does each after it up to the next key
    frame, since they are built on it. What follows the last frame of a video that breaks off says how many frames there
    should have been.

    Args:
        path: the file or the folder.

    Raises:
        DatasetNotFound: there is nothing at the path, or no image in the folder. MissingExtra: PyAV is not installed.
        RobustsegError: the file is not a video, or one that is not shown as it is (see the head of this file).
    """
    path = Path(path)
    if path.is_dir():
        images = images_at(path)
        yield from _each(len(images), images.__getitem__)
    elif path.is_file():
        with _opened(path) as film:
            for number, (frame, problem) in enumerate(_decoded(film)):
                yield Frame(number, None if frame is None else _image(_pixels(frame, film)), problem)
    else:
        raise DatasetNotFound(f"expected a video or a folder of images at '{path}', got nothing; try another path")


def frames_of(data: Dataset) -> Iterator[Frame]:
    """The images of a data set as frames, in its order; labels are not looked at."""
    return _each(len(data), lambda number: data[number].image)


def frame_rate(path: str | Path) -> Fraction | None:
    """Frames a second of a video file, or None where it does not say.

    Raises:
        MissingExtra: PyAV is not installed. RobustsegError: the file is not a video.
    """
    with _opened(Path(path)) as film:
        rate: Fraction | None = film.stream.average_rate
        return rate


class Video:
    """The frames of a video file by number, exactly as decoding from the first frame on gives them.

    Building it decodes the file once: that counts the frames, finds damage, and notes the time and a checksum of each. A
    frame that is read later must agree with them. In order each frame is decoded once; out of order, decoding begins at a
    key frame before it where seeking leads to a frame that is known, else at the first frame (raw streams, some AVI).

    Args:
        path: of the file.

    Raises:
        MissingExtra: PyAV is not installed. RobustsegError: the file is not a video, holds no frame, or a frame is damaged.
    """

    def __init__(self, path: Path):
        self.path, known = path, os.stat(path)
        self._marks, self._keys = _survey(path, known.st_mtime_ns, known.st_size, known.st_ino)
        self._places = {mark: number for number, mark in enumerate(self._marks)}
        self._film: _Film | None = None
        self._frames: _Decoded = iter(())
        self._next = len(self._marks)  # what `_frames` gives next: nothing yet

    def __len__(self) -> int:
        return len(self._marks)

    def name(self, index: int) -> str:
        """Frames of one file are one sequence."""
        return f"{self.path.stem}_{index:06d}"

    def fingerprint(self, index: int) -> str:
        """A digest of the file, and the number of the frame."""
        return f"{sha256(self.path)}:{index}"

    def __getitem__(self, index: int) -> Tensor:
        """RGB float32 `[3, h, w]` in [0, 1]."""
        index = range(len(self))[index]
        before = self._keys[: bisect_right(self._keys, index)]
        if not (before[-1] if before else 0) <= self._next <= index:
            self._seek(before[-2:], index)
        pixels = self._read(index)
        if pixels is None:
            self._rewind()
            pixels = self._read(index)
        if pixels is None:
            raise RobustsegError(
                f"expected frame {index} of '{self.path}' as it was when this file was opened, got another; "
                "try again once the file no longer changes"
            )
        return _image(pixels)

    def _read(self, index: int) -> np.ndarray | None:
        """Decode up to a frame; None where it is not the one that the survey saw."""
        assert self._film is not None
        for frame, _ in self._frames:
            self._next += 1
            if self._next > index:
                pixels = None if frame is None else _pixels(frame, self._film)
                if pixels is not None and _mark(frame, pixels) == self._marks[index]:
                    return pixels
                break
        self._next = len(self) + 1
        return None

    def _seek(self, keys: list[int], index: int) -> None:
        """Begin at the last of some key frames, or, where seeking leads past the frame that is wanted, at one before."""
        self._film = self._film or _open(self.path)
        for key in reversed(keys):
            place = self._land(self._marks[key].time)
            if place is not None and place <= index:
                self._next = place
                return
        self._rewind()

    def _land(self, time: int | None) -> int | None:
        """Seek; the number of the frame that comes next, or None where none of the first is known again."""
        assert self._film is not None
        try:
            self._film.container.seek(time, stream=self._film.stream)
        except (load_av().FFmpegError, OSError):
            return None
        self._frames = _decoded(self._film, damage="no key frame before it")
        for frame in islice((frame for frame, _ in self._frames if frame is not None), 8):
            place = self._places.get(_mark(frame, _pixels(frame, self._film)))
            if place is not None:
                self._frames = chain([(frame, "")], self._frames)
                return place
        return None

    def _rewind(self) -> None:
        self._film = _open(self.path)
        self._frames, self._next = _decoded(self._film), 0


class _Film(NamedTuple):
    """An open file and the stream of it that is shown."""

    path: Path
    container: Any
    stream: Any


class _Mark(NamedTuple):
    """What a frame is known by: its time, if it has one, and a checksum of its pixels."""

    time: int | None
    checksum: int


_Decoded = Iterator[tuple[Any, str]]


@lru_cache(maxsize=8)
def _survey(path: Path, *_: int) -> tuple[list[_Mark], list[int]]:
    """The marks of all frames, and the numbers of the key frames that have a time."""
    marks: list[_Mark] = []
    keys = []
    with _opened(path) as film:
        for number, (frame, problem) in enumerate(_decoded(film)):
            if frame is None:
                raise RobustsegError(
                    f"expected a whole video in '{path}', got damage at frame {number}: {problem}; "
                    "try copying this file again, or keep what can be played: ffmpeg -i IN -crf 10 OUT.mp4"
                )
            if frame.key_frame and frame.pts is not None:
                keys.append(number)
            marks.append(_mark(frame, _pixels(frame, film)))
    if not marks:
        raise RobustsegError(f"expected frames in '{path}', got none; try copying this file again")
    return marks, keys


def _mark(frame: Any, pixels: np.ndarray) -> _Mark:
    return _Mark(frame.pts, zlib.crc32(np.ascontiguousarray(pixels).data))


def _each(count: int, read: Callable[[int], Tensor]) -> Iterator[Frame]:
    for number in range(count):
        try:
            yield Frame(number, read(number))
        except RobustsegError as error:
            yield Frame(number, None, str(error))


@contextmanager
def _opened(path: Path) -> Iterator[_Film]:
    film = _open(path)
    with film.container:
        yield film


def _open(path: Path) -> _Film:
    av = load_av()
    try:
        # a relative name with a colon would be taken for a protocol; texts in a file need not be UTF-8
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise RobustsegError(
            f"expected a video in '{path}', got '{_text(error)}'; try a complete file that a player opens"
        ) from error
    covers = av.stream.Disposition.attached_pic
    films = [s for s in container.streams.video if s.codec_context and not s.disposition & covers]
    if not films or container.format.name in PLAYLISTS:
        got = "no video stream that can be decoded" if not films else "a list of other files"
        container.close()
        raise RobustsegError(f"expected a video in '{path}', got {got}; try a file that holds the frames itself")
    stream = films[0]
    stream.codec_context.options = {"err_detect": "explode"}
    stream.thread_type = "NONE"  # threads report damage some frames later, or, of H.264, not at all
    return _Film(path, container, stream)


def _decoded(film: _Film, damage: str = "") -> _Decoded:
    """The frames in the order of showing, each with an empty text; or None and what is wrong with it.

    What follows a damaged frame is built on it, and what the decoder still holds may be the damaged frame itself: decoding
    begins anew at the next key frame, and each packet up to there counts as one damaged frame.

    Args:
        film: from where it stands. damage: what is wrong before the first key frame; given after a seek.
    """
    av, whole, begin = load_av(), not damage, None
    packets, seen, due, shown = film.container.demux(film.stream), 0, 0, 0
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            yield None, f"the file cannot be read: {_text(error)}"
            return
        if packet is None:
            break
        seen += packet.size > 0
        due += packet.size > 0 and not packet.is_discard
        if damage and packet.is_keyframe:
            damage, begin = "", packet.pts
        leads = begin is not None and packet.pts is not None and packet.pts < begin  # shown before that key frame
        if damage or leads:
            if packet.size and not packet.is_discard:
                yield None, damage or "the frame is built on a damaged one"
                shown += 1
            continue
        frames = []
        try:
            frames = packet.decode()
        except (av.FFmpegError, OSError) as error:
            damage = f"the frame cannot be decoded: {_text(error)}"
        for frame in frames:
            if frame.is_corrupt:
                damage = "the frame is damaged"
                break
            yield frame, ""
            shown += 1
        if damage:
            film.stream.codec_context.flush_buffers()
        while damage and shown < due:
            yield None, damage
            shown += 1
    listed = _listed(film)
    if whole and listed > seen:
        yield None, f"the video ends after {seen} of its {listed} frames"


def _listed(film: _Film) -> int:
    """How many packets the file says it has, or 0; of MP4 those that the edit list leaves."""
    of_mp4 = film.container.format.name.startswith("mov")
    return len(film.stream.index_entries) if of_mp4 else int(film.stream.frames)


def _drained(film: _Film) -> list[Any]:
    """The frames that the decoder still holds; it begins anew after that."""
    context = film.stream.codec_context
    try:
        return list(context.decode(None))
    except (load_av().FFmpegError, OSError):
        return []
    finally:
        context.flush_buffers()


def _pixels(frame: Any, film: _Film) -> np.ndarray:
    """The frame upright, uint8 `[h, w, 3]`."""
    transfer = HDR.get(film.stream.codec_context.color_trc)
    if transfer:
        raise RobustsegError(
            f"expected video of standard dynamic range in '{film.path}', got HDR ({transfer}); "
            "try a tone-mapped copy, as a video editor exports it"
        )
    alpha = any(part.is_alpha for part in frame.format.components)
    try:
        pixels: np.ndarray = frame.to_ndarray(format="rgba" if alpha else "rgb24")
    except (load_av().FFmpegError, ValueError) as error:
        raise RobustsegError(
            f"expected pixels that convert to RGB in '{film.path}', got {frame.format.name}; "
            "try a copy in an ordinary format: ffmpeg -i IN -pix_fmt yuv420p OUT.mp4"
        ) from error
    if alpha and pixels[..., 3].min() < 255:
        raise RobustsegError(
            f"expected opaque pixels in '{film.path}', got transparent ones; "
            "try a copy without alpha: ffmpeg -i IN -pix_fmt yuv420p OUT.mp4"
        )
    pixels = pixels[..., :3]
    turn = frame.side_data.get("DISPLAYMATRIX")
    if turn is None:
        return pixels
    # where the stored point (x, y) is shown: (a x + c y, b x + d y); x right, y down
    a, b, _, c, d = np.frombuffer(turn, np.int32)[:5].tolist()
    if a == d == 0 and b and c:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    elif b or c or not (a and d):
        raise RobustsegError(
            f"expected a rotation by quarters or a mirrored picture in '{film.path}', got the display matrix "
            f"{[a, b, c, d]}; try a copy that is stored upright: ffmpeg -i IN OUT.mp4"
        )
    return pixels[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1]


def _image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous().float() / 255


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
