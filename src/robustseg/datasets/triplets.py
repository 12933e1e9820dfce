"""Video for learning depth: each frame with the frames before and after it, and what is known of the camera. Void labels.

Everything here is made of drives, the frames of one camera in order; `Triplets` turns drives into samples. `clip` takes any
video file or folder of frames; other files of this room read the trees of KITTI, Cityscapes and DGP.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.levels import to_8bit
from robustseg.core.provenance import sha256
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.core.types import Batch, Dataset, Sample
from robustseg.datasets.files import image_size, read_depth
from robustseg.datasets.frames import frames_at
from robustseg.datasets.sequence import Images
from robustseg.datasets.streets import parse_size
from robustseg.datasets.video import Video
from robustseg.datasets.views import resize_image, resize_intrinsics

EXTRAS = ("previous", "next", "intrinsics")
"""What a sample of video must know besides its image."""


@runtime_checkable
class Source(Protocol):
    """Frames by number, such as `Images` or `Video`."""

    def __getitem__(self, index: int, /) -> Tensor: ...

    def fingerprint(self, index: int, /) -> str: ...


@dataclass(frozen=True)
class Drive:
    """The frames of one camera, in order and evenly spaced.

    Args:
        ids: one a frame, with the number of the frame behind the last underscore.
        frames: by place, float32 `[3, h, w]` in [0, 1], with a fingerprint each.
        intrinsics: `[3, 3]`, pixels; None: not known.
        poses: float64 `[n, 4, 4]`, the world from the camera of each frame, metres; None: not known.
        depths: place -> a 16-bit PNG of metres times 256, 0 where nothing was measured; a frame without one has depth 0.
    """

    ids: Sequence[str]
    frames: Source
    intrinsics: Tensor | None = None
    poses: np.ndarray | None = None
    depths: Mapping[int, Path] = field(default_factory=dict)


class Triplets(Dataset):
    """Frames with their neighbours: the extras `previous` and `next`, and as far as the drive knows them `intrinsics`,
    `pose_previous`, `pose_next` and `depth`. A frame without both neighbours in its drive is only a neighbour itself.

    Args:
        drives: where the frames come from. spec: the text that rebuilds it but for `step` and `classes`.
        step: how many frames before and after the neighbours are.
        classes: the label space to stand beside labelled data; no pixel has a label of it.
        neighbours: without them every frame is a sample, for measuring depth.
        files: those that tell this data from others of the same spec.

    Raises:
        SpecError: `step` is not positive. RobustsegError: no drive is long enough; later, a frame cannot be read, or the
            frames of a drive change their size.
    """

    def __init__(
        self,
        drives: Sequence[Drive],
        *,
        spec: str,
        step: int = 1,
        classes: Classes = "camvid",
        neighbours: bool = True,
        files: Sequence[Path] = (),
    ):
        if step < 1:
            raise SpecError(f"expected a step of at least 1 frame, got {step}; try step=1")
        reach = step if neighbours else 0
        self._places = [(drive, i) for drive in drives for i in range(reach, len(drive.ids) - reach)]
        if not self._places:
            longest = max((len(drive.ids) for drive in drives), default=0)
            raise RobustsegError(
                f"expected a drive of at least {2 * reach + 1} frames in {spec}, got {longest} at most; "
                "try a longer video or a smaller step"
            )
        self.label_space, self.step, self._neighbours = label_space(classes), step, neighbours
        space = classes_text(self.label_space)
        self.spec = f"{spec.removesuffix(')')}{f', step={step}' * (step > 1)}, classes={space})"
        self.files = tuple(files)
        self.ids = tuple(drive.ids[i] for drive, i in self._places)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        drive, at = self._places[index]
        image = drive.frames[at]
        extras = {} if drive.intrinsics is None else {"intrinsics": drive.intrinsics}
        if drive.depths:
            known = drive.depths.get(at)
            extras["depth"] = torch.zeros(image.shape[1:]) if known is None else read_depth(known, image.shape[1:])
        for name, there in self._beside(at):
            extras[name] = drive.frames[there]
            _require_size(extras[name], size_of(image), drive.ids[there])
            if drive.poses is not None:
                pose = np.linalg.inv(drive.poses[there]) @ drive.poses[at]
                extras[f"pose_{name}"] = torch.from_numpy(pose).float()
        return Sample(image, torch.full(image.shape[1:], IGNORE), self.ids[index], extras)

    def fingerprint(self, index: int) -> str:
        """A digest of the files of the frame, of its neighbours and of its depth, and of what is known of the camera."""
        drive, at = self._places[index]
        told = hashlib.sha256()
        for place in (at, *(there for _, there in self._beside(at))):
            told.update(drive.frames.fingerprint(place).encode())
            told.update(b"" if drive.poses is None else drive.poses[place].tobytes())
        told.update(b"" if drive.intrinsics is None else drive.intrinsics.numpy().tobytes())
        told.update(sha256(drive.depths[at]).encode() if at in drive.depths else b"")
        return told.hexdigest()

    def _beside(self, at: int) -> tuple[tuple[str, int], ...]:
        """The neighbours of a frame: name and place."""
        return (("previous", at - self.step), ("next", at + self.step)) if self._neighbours else ()


@dataset("clip")
def clip(
    path: str,
    *,
    intrinsics: Sequence[float] | None = None,
    step: int = 1,
    size: str | None = None,
    classes: Classes = "camvid",
) -> Triplets:
    """Any video file or folder of frames as triplets: `clip('drive.mp4', intrinsics=(721.5, 721.5, 609.6, 172.9))`.

    A video is decoded once, into memory as 8-bit values, when its first sample is read; grey frames become three equal
    colours.

    Args:
        path: a video (needs the extra `video`), a folder of frames or a pattern of image files, in
            the natural order of their names.
        intrinsics: focal lengths and centre `(fx, fy, cx, cy)` in pixels of the frames as they are; None: not known, and
            for the training to learn.
        step: how many frames before and after the neighbours are; 1 of a slow camera is too near to tell depth.
        size: `'HxW'`, bilinear; None: as they are.
        classes: the label space to stand beside labelled data.

    Raises:
        DatasetNotFound: there is nothing there. SpecError: an argument makes no sense. RobustsegError: fewer frames than
            a triplet, or no video that can be read.
    """
    source = frames_at(path)
    wanted = None if size is None else parse_size(size)
    given = f", intrinsics={tuple(intrinsics)!r}" if intrinsics is not None else ""
    given += f", size='{wanted[0]}x{wanted[1]}'" if wanted else ""
    before, camera = size_of(source[0]), None
    if intrinsics is not None:
        camera = resize_intrinsics(camera_matrix(intrinsics, before, of=path), before, wanted or before)
    frames = (_Decoded if isinstance(source, Video) else _Read)(source, before, wanted or before)
    drive = Drive([source.name(i) for i in range(len(source))], frames, camera)
    files = (Path(path),) if isinstance(source, Video) else ()
    return Triplets([drive], spec=f"clip(path={path!r}{given})", step=step, classes=classes, files=files)


class _Read:
    """Frames of a source, read when asked for: from one size, and to one."""

    def __init__(self, source: Images | Video, before: tuple[int, int], after: tuple[int, int]):
        self._source, self._before, self._after = source, before, after

    def __getitem__(self, index: int) -> Tensor:
        image = self._source[index]
        _require_size(image, self._before, self._source.name(index))
        return image if self._before == self._after else resize_image(image, self._after)

    def fingerprint(self, index: int) -> str:
        return f"{self._source.fingerprint(index)} at {self._after}"


class _Decoded(_Read):
    """The same from memory: all frames are decoded in order at the first use, as reading a video out of order is slow."""

    @functools.cached_property
    def _frames(self) -> list[Tensor]:
        whole = (_Read.__getitem__(self, i) for i in range(len(self._source)))
        return [to_8bit(image) for image in whole]

    def __getitem__(self, index: int) -> Tensor:
        return self._frames[index].float() / 255


def _require_size(image: Tensor, size: tuple[int, int], name: str) -> None:
    if size_of(image) != size:
        raise RobustsegError(
            f"expected frames of one size, {size[1]}x{size[0]}, got {image.shape[2]}x{image.shape[1]} in '{name}'; "
            "try one video a clip"
        )


def size_of(image: Tensor | Path) -> tuple[int, int]:
    """(height, width) of an image `[3, h, w]`, or of an image file, of which only the head is read.

    Raises:
        RobustsegError: no image that can be read.
    """
    if isinstance(image, Tensor):
        return int(image.shape[1]), int(image.shape[2])
    return image_size(image)


def camera_matrix(numbers: Sequence[float], size: tuple[int, int], *, of: object) -> Tensor:
    """Intrinsics `[3, 3]` of `(fx, fy, cx, cy)`, pixels of an image of (height, width).

    Args:
        numbers: the four. size: of the images. of: what they belong to, for the error.

    Raises:
        SpecError: a focal length is not positive, or the centre is outside the image.
    """
    fx, fy, cx, cy = numbers if len(numbers) == 4 else (math.nan,) * 4
    height, width = size
    inside = -0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5
    if not (0 < fx < math.inf and 0 < fy < math.inf and inside):
        raise SpecError(
            f"expected intrinsics (fx, fy, cx, cy) with focal lengths above 0 and the centre inside the {width}x{height} "
            f"pixels of '{of}', got {tuple(numbers)}; try the calibration of this camera at this size"
        )
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)


class Uncalibrated(Dataset):
    """Video of an unknown camera with a first guess: square pixels, as far away as the image is wide, axis in the middle."""

    def __init__(self, data: Dataset):
        self._data, self.spec, self.label_space, self.ids = data, data.spec, data.label_space, data.ids
        self.size, self.files = data.size, data.files

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        sample = self._data[index]
        h, w = sample.image.shape[-2:]
        guess = torch.tensor([[w, 0, (w - 1) / 2], [0, w, (h - 1) / 2], [0, 0, 1]], dtype=torch.float32)
        return dataclasses.replace(sample, extras={**sample.extras, "intrinsics": guess})


def frames_of(video: Batch) -> tuple[Tensor, ...]:
    """Frames, those before and after them, and their intrinsics."""
    frames = (video.images, *(video.extras[name] for name in EXTRAS[:2]))
    return *(x.contiguous(memory_format=torch.channels_last) for x in frames), video.extras["intrinsics"]
