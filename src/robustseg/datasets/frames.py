"""Images without labels: a folder, a pattern of files, or the frames of a video. Every pixel is void (255).

For what needs images alone: finetuning an adaptive student, watching a stream.
"""

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustseg.core.errors import DatasetNotFound, RobustsegError, SpecError
from robustseg.core.film import load_av
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import sha256
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.files import IMAGE_SUFFIXES, images_in, read_image
from robustseg.datasets.views import resize_image


@dataset("frames")
class Frames(Dataset):
    """Images without labels: `frames('FOLDER')`, `frames('FOLDER/left_*.png')` or `frames('drive.mp4', every=5)`.

    Args:
        path: a folder of images, a pattern of image files, or a video (needs the extra `video`).
        every: take the first and then each so-many-th.
        height: resize to this height, the width in proportion, so that frames of several cameras compare; None: as
            they are.
        classes: the label space to stand beside labelled data and networks; no pixel has a label of it.

    Raises:
        DatasetNotFound: there is nothing there. SpecError: `every` or `height` is not positive. MissingExtra: a video,
            without PyAV. RobustsegError: no video that can be read; later, a frame that cannot.
    """

    def __init__(self, path: str, *, every: int = 1, height: int | None = None, classes: Classes = "camvid"):
        if every < 1 or (height is not None and height < 1):
            raise SpecError(
                f"expected every and height of at least 1, got {every} and {height}; try every=5, height=360"
            )
        self.label_space = label_space(classes)
        given = {"every": every} if every > 1 else {}
        given |= {"height": height} if height is not None else {}
        named = "".join(f", {name}={value}" for name, value in given.items())
        space = classes_text(self.label_space)
        self.spec = f"frames(path={path!r}{named}{f', classes={space}' if classes != 'camvid' else ''})"
        self.height = height
        self._source = frames_at(path)
        self.files = (self._source.path,) if isinstance(self._source, Video) else ()
        self._indices = range(0, len(self._source), every)
        self.ids = tuple(self._source.name(i) for i in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        image = self._source[self._indices[index]]
        if self.height is not None:
            image = resize_image(image, (self.height, max(1, round(image.shape[-1] * self.height / image.shape[-2]))))
        return Sample(image, torch.full(image.shape[-2:], IGNORE), self.ids[index])

    def fingerprint(self, index: int) -> str:
        """A digest of the image file, or of the video and the number of the frame."""
        number = self._indices[index]
        if isinstance(self._source, Video):
            return f"{sha256(self._source.path)}:{number}"
        return sha256(self._source.paths[number])


def frames_at(path: str) -> "Images | Video":
    """The frames of a folder of images, of a pattern of image files or of a video, by number.

    Raises:
        DatasetNotFound: there is nothing there. MissingExtra: a video, without PyAV. RobustsegError: no video.
    """
    place = Path(path)
    video = place.is_file() and place.suffix.lower() not in IMAGE_SUFFIXES
    return Video(place) if video else Images(place)


class Images:
    """Image files, by name; those of one folder are frames of one sequence."""

    def __init__(self, place: Path):
        if "*" in place.name and place.parent.is_dir():
            self.paths = [p for p in images_in(place.parent) if p.match(place.name)]
        else:
            self.paths = images_in(place) if place.is_dir() else []
        if not self.paths:
            raise DatasetNotFound(
                f"expected images or a video at '{place}', got none; try the folder of the images, a pattern such as "
                "'FOLDER/*.png', or the path of a video file"
            )
        twice = {a.stem for a, b in zip(self.paths, self.paths[1:], strict=False) if a.stem == b.stem}
        if twice:
            raise RobustsegError(
                f"expected one image a name in '{place}', got '{twice.pop()}' twice; try a pattern such as 'FOLDER/*.png'"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        path = self.paths[index]
        return f"{path.resolve().parent.name}_{path.stem}"

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.paths[index])


class Video:
    """The frames of a video file by number; in order each is decoded once, out of order from the key frame before.

    Raises:
        MissingExtra: PyAV is not installed. RobustsegError: the file is no video, or holds no frame.
    """

    def __init__(self, path: Path):
        self._av, self.path = load_av(), path
        try:
            self._file: Any = self._av.open(str(path))
            self._stream = self._file.streams.video[0]
            packets = [(p.pts, p.is_keyframe) for p in self._file.demux(self._stream) if p.pts is not None]
        except (self._av.FFmpegError, IndexError) as error:
            raise self._unreadable("a video", error) from error
        if not packets:
            raise RobustsegError(f"expected frames in '{path}', got none; try copying this file again")
        packets.sort()
        self._times = [time for time, _ in packets]
        self._keys = [i for i, (_, key) in enumerate(packets) if key] or [0]
        self._frames: Iterator[Any] = iter(())
        self._next = len(self._times)  # what `_frames` gives next: nothing yet, so the first read seeks

    def __len__(self) -> int:
        return len(self._times)

    def name(self, index: int) -> str:
        """Frames of one file are one sequence."""
        return f"{self.path.stem}_{index:06d}"

    def __getitem__(self, index: int) -> Tensor:
        """RGB float32 `[3, h, w]` in [0, 1]."""
        key = self._keys[max(0, bisect_right(self._keys, index) - 1)]
        try:
            if not key <= self._next <= index:
                self._frames = self._from(self._times[key])
            frame = next((f for f in self._frames if f.pts is not None and f.pts >= self._times[index]), None)
        except self._av.FFmpegError as error:
            self._next = len(self._times)
            raise self._unreadable(f"frame {index}", error) from error
        if frame is None or frame.pts != self._times[index]:
            self._next = len(self._times)
            raise self._unreadable(f"frame {index}", "nothing")
        self._next = index + 1
        return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).contiguous().float() / 255

    def _from(self, time: int) -> Iterator[Any]:
        self._file.seek(time, stream=self._stream)
        return iter(self._file.decode(self._stream))

    def _unreadable(self, what: str, error: object) -> RobustsegError:
        return RobustsegError(f"expected to read {what} from '{self.path}', got '{error}'; try copying this file again")
