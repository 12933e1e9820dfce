"""Frames in order from a video file or a folder of images, one at a time: memory does not grow with the length.

A frame that cannot be read is an answer and not the end: it comes as a `Frame` without an image that says why, and the
next one follows. Video needs the extra `video` (PyAV).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustseg.core.errors import DatasetNotFound, RobustsegError
from robustseg.core.film import load_av
from robustseg.core.types import Dataset
from robustseg.datasets.files import images_in, read_image


class Frame(NamedTuple):
    """One frame: its number from 0, the image (float32 `[3, h, w]` in [0, 1]), or None and why there is none."""

    number: int
    image: Tensor | None
    problem: str = ""


def read_frames(path: str | Path) -> Iterator[Frame]:
    """The frames of a video file, or of a folder of images by name, in order; each call starts at the first.

    A damaged frame of a video counts as one frame and has no image, and so has what follows the last frame of a video
    that breaks off: its `problem` says how many frames there should have been.

    Args:
        path: the file or the folder.

    Raises:
        DatasetNotFound: there is nothing at the path, or no image in the folder. MissingExtra: PyAV is not installed.
        RobustsegError: the file is no video.
    """
    path = Path(path)
    if path.is_dir():
        yield from _of_folder(path)
    elif path.is_file():
        yield from _of_video(path)
    else:
        raise DatasetNotFound(f"expected a video or a folder of images at '{path}', got nothing; try another path")


def frames_of(data: Dataset) -> Iterator[Frame]:
    """The images of a data set as frames, in its order; labels are not looked at."""
    for number in range(len(data)):
        try:
            yield Frame(number, data[number].image)
        except RobustsegError as error:
            yield Frame(number, None, str(error))


def frame_rate(path: str | Path) -> Fraction | None:
    """Frames a second of a video file, or None where it does not say.

    Raises:
        MissingExtra: PyAV is not installed. RobustsegError: the file is no video.
    """
    with _opened(Path(path)) as container:
        rate: Fraction | None = container.streams.video[0].average_rate
        return rate


def _of_folder(folder: Path) -> Iterator[Frame]:
    files = images_in(folder)
    if not files:
        raise DatasetNotFound(f"expected images in '{folder}', got none; try a folder of PNG or JPEG files")
    for number, file in enumerate(files):
        try:
            yield Frame(number, read_image(file))
        except RobustsegError as error:
            yield Frame(number, None, str(error))


def _of_video(path: Path) -> Iterator[Frame]:
    with _opened(path) as container:
        stream, count = container.streams.video[0], 0
        for image, problem in _decoded(container, stream):
            yield Frame(count, image, problem)
            count += 1
        if stream.frames > count:
            yield Frame(count, None, f"the video ends after {count} of its {stream.frames} frames")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    av = load_av()
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise RobustsegError(
            f"expected a video in '{path}', got '{_text(error)}'; try a complete file that a player opens"
        ) from error
    with container:
        if not container.streams.video:
            raise RobustsegError(f"expected a video in '{path}', got a file without pictures; try another file")
        yield container


def _decoded(container: Any, stream: Any) -> Iterator[tuple[Tensor | None, str]]:
    av, packets = load_av(), container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except (av.FFmpegError, OSError) as error:
            yield None, f"the frame cannot be decoded: {_text(error)}"
            continue
        for frame in frames:
            if frame.is_corrupt:
                yield None, "the frame is damaged"
            else:
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                yield pixels.permute(2, 0, 1).contiguous().float() / 255, ""


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
