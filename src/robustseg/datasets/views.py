"""Views on a data set (fewer images, another size) and the batches made of it."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.core.errors import RobustsegError, SpecError, users_code
from robustseg.core.labels import IGNORE, LabelSpace
from robustseg.core.provenance import sha256
from robustseg.core.types import Batch, Dataset, Sample

SMALLEST = 8
"""The least height and width of images: what most networks halve three times."""


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
        require_size(size)
        self._data, self.size = data, size
        self.spec = data.spec
        self.files = data.files
        self.label_space: LabelSpace = data.label_space
        self.ids: Sequence[str] = data.ids

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        sample = read(self._data, index)
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
        return resize_image(value, after)
    return F.interpolate(value[None, None].float(), tuple(after), mode="nearest-exact")[0, 0].to(value.dtype)


def resize_images(images: Tensor, size: Sequence[int], *, antialias: bool = True) -> Tensor:
    """Images `[b, c, h, w]` at another (height, width), bilinear; themselves where it is theirs.

    The one rule for images, whether `--size` or a network resizes them: pixel centres are whole numbers
    (`align_corners=False`), and smaller images are antialiased, as in Pillow. Gradients flow through.

    Args:
        antialias: False for plain bilinear, which skips pixels of much larger images: logits, and the owner's choice.

    Raises:
        ShapeError: no machine's memory holds the result.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    require_size(size, least=1)
    height, width = (int(side) for side in size)
    return F.interpolate(images, (height, width), mode="bilinear", antialias=antialias, align_corners=False)


def resize_image(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image `[3, h, w]` at another size by the rule of `resize_images`, within [0, 1]."""
    return resize_images(image[None], size)[0].clamp(0, 1)


def require_size(size: Sequence[int], *, least: int = SMALLEST) -> None:
    """Raise unless images can have this (height, width): at least `least` each, and one of them fits into the memory.

    Raises:
        SpecError: they cannot.
    """
    height, width = size
    if min(size) < least or any(side != int(side) for side in size):
        raise SpecError(f"expected a size HxW of at least {least}x{least}, got {height}x{width}; try 180x240")
    needed, there = 12 * height * width, _memory()
    if needed > there:
        raise SpecError(
            f"expected images that fit into {there / 2**30:.0f} GiB of memory, got {height}x{width}, of which one needs "
            f"{needed / 2**30:,.0f} GiB; try 512x1024"
        )


def _memory() -> int:
    """The memory of this machine in bytes; where nobody knows, 64 GiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 64 * 2**30


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
        changed += [f"image or mask '{data.ids[i]}'" for i in images if _fingerprint(data, i) != self.samples[i]]
        if changed:
            raise RobustsegError(
                f"expected {data.spec} as it was when the run began, got another {changed[0]}; try the command again "
                "on data that nobody writes to and that is the same whenever it is read"
            )


def content(data: Dataset) -> Content:
    """What a data set is made of now; one without a `fingerprint` of its own is read once for it.

    The digest covers all images and masks in order and the files of the data set: `Record.content`.

    Raises:
        RobustsegError: as for `require_ids`, and as for `read` where a sample cannot be read.
    """
    require_ids(data)
    files = tuple((str(path), sha256(path)) for path in data.files)
    samples = tuple(_fingerprint(data, index) for index in range(len(data)))
    told = hashlib.sha256("".join(digest for _, digest in files).encode())
    for name, sample in zip(data.ids, samples, strict=True):
        told.update(f"{name}:{sample};".encode())
    return Content(files, samples, told.hexdigest()[:16])


def _fingerprint(data: Dataset, index: int) -> str:
    with users_code(
        f"a fingerprint of sample {index} of {data.spec}", "the fingerprint of robustseg.core.types.Dataset"
    ):
        try:
            return data.fingerprint(index)
        except Exception:
            read(data, index)  # a sample that breaks the contract says more
            raise


def require_ids(data: Dataset) -> None:
    """Raise unless a data set has one id a sample, a text that no other sample has.

    Raises:
        RobustsegError: it has not.
    """
    with users_code(f"ids and a length of {data.spec}", "ids: a sequence of one text a sample"):
        ids, count = list(data.ids), len(data)
    strange = [name for name in ids if not isinstance(name, str)]
    if strange or len(ids) != count or len(set(ids)) < count:
        twice = next((name for name in ids if ids.count(name) > 1), None) if not strange else None
        got = (
            f"a {type(strange[0]).__name__}, {strange[0]!r}"
            if strange
            else f"{len(ids)} for {count}"
            if len(ids) != count
            else f"'{twice}' twice"
        )
        raise RobustsegError(f"expected one id a sample of {data.spec}, unique texts, got {got}; try str(index)")


def read(data: Dataset, index: int) -> Sample:
    """A sample of a data set, checked: everything that measures or trains reads through here.

    Raises:
        RobustsegError: the data set raised, or what it gave breaks the contract of `Sample`; the text says how.
    """
    with users_code(f"sample {index} of {data.spec}", "reading that file alone"):
        sample = data[index]
    wrong = _wrong_in(sample, data, index)
    if wrong:
        raise RobustsegError(f"expected {wrong[0]} in sample {index} of {data.spec}, got {wrong[1]}; try {wrong[2]}")
    return sample


def _wrong_in(sample: Any, data: Dataset, index: int) -> tuple[str, str, str] | None:
    """What breaks the contract of a sample: what was expected, what came, what to try; None where nothing does."""
    if not isinstance(sample, Sample):
        made = "robustseg.core.types.Sample(image, labels, id)"
        return "a Sample", f"a {type(sample).__name__}", f"returning {made}"
    image, labels = sample.image, sample.labels
    fix = "torch.from_numpy(image).permute(2, 0, 1).float() / 255 of an RGB array [h, w, 3] in 0..255"
    if not isinstance(image, Tensor) or image.dtype != torch.float32 or image.ndim != 3 or image.shape[0] != 3:
        return "a float32 image [3, h, w]", _shown(image), fix
    if not image.numel():
        return "an image with pixels", _shown(image), "other files"
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        return "an image in [0, 1]", f"values from {low:g} to {high:g}", "image / 255, without any normalisation"
    size = tuple(image.shape[1:])
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or tuple(labels.shape) != size:
        return f"int64 labels {size}", _shown(labels), "torch.from_numpy(labels).long(), at the size of the image"
    strange = labels[((labels < 0) | (labels >= len(data.label_space))) & (labels != IGNORE)]
    if strange.numel():
        return f"labels 0 to {len(data.label_space) - 1}, or {IGNORE} for void", f"{int(strange[0])}", "other classes"
    if sample.id != data.ids[index]:
        return f"the id {data.ids[index]!r}", repr(sample.id), "the ids of the data set as those of its samples"
    return None


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {list(value.shape)}"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" {getattr(value, 'dtype', '')} {list(shape)}" if shape is not None else "")


def batches(data: Dataset, batch_size: int, *, start: int = 0) -> Iterator[Batch]:
    """Batches in the order of the data set, each of one image size; the same ones at every call.

    Args:
        data: images may differ in size: a batch ends where the size changes.
        batch_size: the most images in a batch.
        start: index of the first image.

    Raises:
        RobustsegError: as for `read` and `require_ids`.
    """
    require_ids(data)
    waiting: list[Sample] = []
    for index in range(start, len(data)):
        sample = read(data, index)
        if waiting and (len(waiting) == batch_size or sample.image.shape != waiting[0].image.shape):
            yield Batch.of(waiting)
            waiting = []
        waiting.append(sample)
    if waiting:
        yield Batch.of(waiting)
