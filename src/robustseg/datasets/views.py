"""Views on a data set (fewer images, another size) and the batches made of it."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.labels import LabelSpace
from robustseg.core.provenance import sha256
from robustseg.core.types import Batch, Dataset, Sample


class Chosen(Dataset):
    """Some images of a data set, by their ids, in this order."""

    def __init__(self, data: Dataset, ids: Sequence[str]):
        place = {name: index for index, name in enumerate(data.ids)}
        missing = [name for name in ids if name not in place]
        if missing:
            raise SpecError(
                f"expected '{missing[0]}' in {data.spec}, got {len(data)} other images; try the data as it was measured"
            )
        self._data = data
        self._indices = [place[name] for name in ids]
        self.spec = data.spec
        self.size = data.size
        self.files = data.files
        self.label_space: LabelSpace = data.label_space
        self.ids: Sequence[str] = tuple(data.ids[i] for i in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._data[self._indices[index]]

    def fingerprint(self, index: int) -> str:
        """That of the chosen sample."""
        return self._data.fingerprint(self._indices[index])


class Spread(Chosen):
    """`count` images of a data set at even distances, or all where it has fewer."""

    def __init__(self, data: Dataset, count: int):
        if count < 1:
            raise SpecError(f"expected at least 1 image, got {count}; try --images 10")
        total = len(data)
        indices = [i * total // count for i in range(count)] if count < total else range(total)
        super().__init__(data, [data.ids[i] for i in indices])


class Resized(Dataset):
    """A data set at another size: images bilinear with antialiasing, labels and other maps nearest, intrinsics to fit.

    Poses stay, and so do extras that are no maps of the image's size. Of sparse depth only what lies nearest to a new
    pixel's centre is left: measure that at its own size.
    """

    size: tuple[int, int]

    def __init__(self, data: Dataset, size: tuple[int, int]):
        if min(size) < 1:
            raise SpecError(f"expected a size HxW of at least 1x1, got {size[0]}x{size[1]}; try 180x240")
        self._data, self.size = data, size
        self.spec = data.spec
        self.files = data.files
        self.label_space: LabelSpace = data.label_space
        self.ids: Sequence[str] = data.ids

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        sample = self._data[index]
        if tuple(sample.image.shape[-2:]) == self.size:
            return sample
        before = sample.image.shape[-2:]
        extras = {name: _resize_extra(name, value, before, self.size) for name, value in sample.extras.items()}
        image, labels = resize_image(sample.image, self.size), resize_labels(sample.labels, self.size)
        return Sample(image, labels, sample.id, extras)

    def fingerprint(self, index: int) -> str:
        """That of the sample at its own size."""
        return self._data.fingerprint(index)


def _resize_extra(name: str, value: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    if name == "intrinsics":
        return resize_intrinsics(value, before, after)
    if value.shape[-2:] != tuple(before):
        return value
    if value.ndim == 3:
        return resize_image(value, (after[0], after[1]))
    return F.interpolate(value[None, None].float(), tuple(after), mode="nearest-exact")[0, 0].to(value.dtype)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image `[3, h, w]` at another size, bilinear, antialiased, `align_corners=False`, within [0, 1]."""
    resized = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)
    return resized[0].clamp_(0, 1)


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels `[h, w]` at another size: the label under each new pixel's centre."""
    return F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].to(torch.int64)


def resize_intrinsics(intrinsics: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Intrinsics `[3, 3]` of an image that went from one (height, width) to another.

    Pixel centres are whole numbers and borders half a pixel outside, so `x -> (x + 0.5) * factor - 0.5`.
    """
    resized = intrinsics.clone()
    for row, axis in ((0, 1), (1, 0)):
        factor = after[axis] / before[axis]
        resized[row] = intrinsics[row] * factor
        resized[row, 2] += factor / 2 - 0.5
    return resized


class Content(NamedTuple):
    """What a data set is made of: (path, digest) of each of its files, and the fingerprint of each image with its mask."""

    files: tuple[tuple[str, str], ...]
    samples: tuple[str, ...]
    digest: str

    def require_same(self, data: Dataset, images: Sequence[int]) -> None:
        """Raise unless some images with their masks, by index, and the files of the data set are what they were.

        Raises:
            RobustsegError: one of them has changed.
        """
        changed = [f"'{path}'" for path, before in self.files if sha256(path) != before]
        changed += [f"image or mask '{data.ids[i]}'" for i in images if data.fingerprint(i) != self.samples[i]]
        if changed:
            raise RobustsegError(
                f"expected {data.spec} as it was when the run began, got another {changed[0]}; try the command again "
                "on data that nobody writes to and that is the same whenever it is read"
            )


def content(data: Dataset) -> Content:
    """What a data set is made of now; one without a `fingerprint` of its own is read once for it.

    The digest covers all images and masks in order and the files of the data set: `Record.content`.
    """
    files = tuple((str(path), sha256(path)) for path in data.files)
    samples = tuple(data.fingerprint(index) for index in range(len(data)))
    told = hashlib.sha256("".join(digest for _, digest in files).encode())
    for name, sample in zip(data.ids, samples, strict=True):
        told.update(f"{name}:{sample};".encode())
    return Content(files, samples, told.hexdigest()[:16])


def batches(data: Dataset, batch_size: int, *, start: int = 0) -> Iterator[Batch]:
    """Batches in the order of the data set, each of one image size; the same ones at every call.

    Args:
        data: images may differ in size: a batch ends where the size changes.
        batch_size: the most images in a batch.
        start: index of the first image.
    """
    waiting: list[Sample] = []
    for index in range(start, len(data)):
        sample = data[index]
        if waiting and (len(waiting) == batch_size or sample.image.shape != waiting[0].image.shape):
            yield Batch.of(waiting)
            waiting = []
        waiting.append(sample)
    if waiting:
        yield Batch.of(waiting)
