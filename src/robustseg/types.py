"""The conventions, the tensor aliases and the contracts that every room shares.

Conventions, pinned by `test_convention_*`:

* images are RGB float32 in [0, 1], `[b, 3, h, w]`; labels are int64 train ids `[b, h, w]`, void is 255;
* logits are `[b, k, h, w]` at the size of the images, always one tensor;
* depth is in metres along the optical axis; x right, y down, z forward; poses map points of this camera to the other;
* pixel centres have integer coordinates and every resize uses `align_corners=False`.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustseg.records import IGNORE, LabelSpace, RobustsegError, ShapeError, SpecError

Images = Float[Tensor, "b 3 h w"]
Labels = Int64[Tensor, "b h w"]
Logits = Float[Tensor, "b k h w"]
Depth = Float[Tensor, "b h w"]
Pose = Float[Tensor, "b 4 4"]
Intrinsics = Float[Tensor, "b 3 3"]
Mask = Bool[Tensor, "b h w"]
PerImage = Float[Tensor, " b"]


class Network(nn.Module):
    """What labels an image: `images in [0, 1] -> logits at input size`, always one tensor.

    Normalisation, colour order and resizing are inside. A subclass writes `forward`; the rest has defaults. A network
    takes one image at a time in the sense that no image of a batch changes the logits of another.

    The logits have one channel a class of the label space, in its order; channels after those stand for void or for
    anything else, take part in the softmax, and a pixel that they win is counted as "void or another class".

    Args:
        label_space: the classes of the logits.
        spec: the text that rebuilds it (`registry.build`).

    Attributes:
        architecture: the spec that rebuilds it without its weights; what its constructor gave as `spec`.
        files: the files it was built from; records keep their hashes.
    """

    def __init__(self, label_space: LabelSpace, spec: str = "network"):
        super().__init__()
        self.label_space = label_space
        self.spec = spec
        self.architecture = spec
        self.files: tuple[Path, ...] = ()

    def predict(self, images: Images) -> Labels:
        """The most likely class of each pixel, `[b, h, w]`. Networks with huge logits may work in bands."""
        return most_likely(self(images))

    def features(self, images: Images) -> dict[str, Tensor]:
        """Named inner feature maps, `[b, c, h', w']` each; empty where the network names none."""
        return {}

    def members(self, images: Images) -> tuple[Logits, ...]:
        """The logits of each network that this one decides among; most are their own only member."""
        return (self(images),)

    def draw(self, rng: "ImageRng") -> "Network":
        """One draw of a randomised network; a network without randomness is its own draw."""
        return self

    def soft(self) -> "Network":
        """A differentiable stand-in for a network that decides hard; most are their own."""
        return self


def most_likely(logits: Logits) -> Labels:
    """The class of the largest logit of each pixel, the first of equals: `logits.argmax(1)`, on CPUs six times as fast."""
    classes = logits.shape[1]
    if logits.device.type != "cpu" or not 0 < classes <= IGNORE or not logits.is_floating_point():
        return logits.argmax(1)
    # Which class holds the maximum is asked of all classes at once; argmax walks from class to class.
    rank = torch.arange(classes, 0, -1, dtype=logits.dtype).view(-1, 1, 1)  # exact up to 256 in any precision
    found = []
    for band in logits.detach().split(band_rows(logits), 2):
        own = band.clone(memory_format=torch.contiguous_format)
        found.append(own.eq_(own.amax(1, keepdim=True)).mul_(rank).amax(1))
    first = classes - torch.cat(found, 1).long()
    return first if bool((first < classes).all()) else logits.argmax(1)  # NaN equals nothing


def band_rows(logits: Logits) -> int:
    """How many rows of logits to work on at a time, so that what a step makes of them stays in a CPU's cache.

    On other devices as many as keep it small beside the logits of a large image.
    """
    values = 2**20 if logits.device.type == "cpu" else 2**26
    return max(1, values // max(1, logits[:, :, :1].numel()))


@dataclass(frozen=True)
class Sample:
    """One image with its labels, and what else the data set knows of it.

    Args:
        image: float32 `[3, h, w]` in [0, 1]. labels: int64 `[h, w]`, train ids, void 255.
        id: unique within the data set; frames of one sequence share what stands before the last underscore.
        extras: named tensors without a batch axis: `depth [h, w]` (metres, 0 unknown), `intrinsics [3, 3]`,
            `pose_next [4, 4]`, `moving [h, w]` (bool), `next [3, h, w]` and so on.
    """

    image: Float[Tensor, "3 h w"]
    labels: Int64[Tensor, "h w"]
    id: str
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Samples of one size, stacked."""

    images: Images
    labels: Labels
    ids: tuple[str, ...]
    extras: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Batch":
        """Stack samples of equal size; extras that only some samples have are left out."""
        names = set.intersection(*(set(s.extras) for s in samples)) if samples else set()
        return cls(
            torch.stack([s.image for s in samples]),
            torch.stack([s.labels for s in samples]),
            tuple(s.id for s in samples),
            {name: torch.stack([s.extras[name] for s in samples]) for name in sorted(names)},
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        extras = {name: value.to(device) for name, value in self.extras.items()}
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), extras=extras)


@runtime_checkable
class Dataset(Protocol):
    """Labelled images with a label space, one at a time by index."""

    spec: str
    label_space: LabelSpace
    ids: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@runtime_checkable
class Perturbation(Protocol):
    """What moves images: the same shape, dtype and device, within [0, 1] and within its budget.

    Inputs, parameters, gradients and the mode of the network stay untouched; void pixels count for nothing; the same
    `rng` gives the same result, whatever the batch size.
    """

    spec: str

    def __call__(self, network: Network, images: Images, labels: Labels, *, rng: "ImageRng") -> Images: ...


Objective = Callable[[Network, Tensor, Tensor], Tensor]
"""What an attack maximises: `(network, images, labels) -> [b]`."""


@dataclass(frozen=True)
class Budget:
    """How far a perturbation may go: a norm over one image, its size, and the pixels that may change.

    Args:
        norm: `linf` (largest change of a value) or `l2` (root of the summed squares over the image).
        eps: in units of images in [0, 1]; 0 is legal and changes nothing.
        region: bool `[h, w]` or `[b, h, w]`, True where pixels may change; None is everywhere.
    """

    norm: str
    eps: float
    region: Tensor | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise SpecError(f"expected the norm 'linf' or 'l2', got '{self.norm}'; try 'linf:8/255'")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise SpecError(f"expected eps >= 0, got {self.eps}; try 'linf:8/255'")
        if self.norm == "linf" and self.eps > 1:
            raise SpecError(f"expected eps of 0 to 1, images being in [0, 1], got {self.eps:g}; try 'linf:8/255'")

    @classmethod
    def parse(cls, text: "str | Budget") -> "Budget":
        """`"linf:8/255"` or `"l2:2.5"`; a budget is returned as it is.

        Raises:
            SpecError: the text is not `norm:number` with a number or a fraction.
        """
        if isinstance(text, Budget):
            return text
        norm, colon, size = text.partition(":")
        if not colon:
            raise SpecError(f"expected 'norm:eps', got '{text}'; try 'linf:8/255'")
        return cls(norm.strip(), fraction(size))

    @property
    def spec(self) -> str:
        """The text that `parse` reads; eps is written n/255."""
        return f"{self.norm}:{as_255(self.eps)}"

    def project(self, images: Images, origin: Images) -> Images:
        """The nearest images within the budget around `origin` (not clipped to [0, 1])."""
        change = self.masked(images - origin)
        if self.norm == "linf":
            return origin + change.clamp(-self.eps, self.eps)
        size = change.flatten(1).norm(dim=1).clamp_min(torch.finfo(change.dtype).tiny)
        return origin + change * (self.eps / size).clamp_max(1).view(-1, 1, 1, 1)

    def masked(self, change: Images) -> Images:
        """A change with 0 at pixels outside the region."""
        if self.region is None:
            return change
        return change * self.region.to(change).expand(len(change), *change.shape[-2:]).unsqueeze(1)

    def select(self, indices: Sequence[int]) -> "Budget":
        """The budget of some images of a batch."""
        own = self.region is not None and self.region.ndim == 3 and len(self.region) > 1
        return replace(self, region=self.region[indices]) if self.region is not None and own else self

    def distance(self, images: Images, origin: Images) -> PerImage:
        """The size of the change of each image in this norm, `[b]`."""
        change = (images - origin).flatten(1)
        return change.abs().amax(1) if self.norm == "linf" else change.norm(dim=1)


def fraction(text: str | float) -> float:
    """`"8/255"`, `"0.5"` or a number, as a float.

    Raises:
        SpecError: it is neither.
    """
    try:
        if isinstance(text, str):
            top, _, bottom = text.partition("/")
            return float(top) / float(bottom or 1)
        return float(text)
    except (ValueError, ZeroDivisionError) as error:
        raise SpecError(f"expected a number or a fraction, got '{text}'; try '8/255'") from error


def as_255(value: float) -> str:
    """A size in [0, 1] written as n/255: 0.0313725 -> '8/255'."""
    return f"{value * 255:.6g}/255"


class ImageRng:
    """One stream of random numbers per image, keyed on (seed, purpose, image id) and never on strength.

    Draws are made on the CPU in float32, image by image, so they do not depend on batch size, order or device, and
    two strengths of one perturbation see the same draws (paired curves). A draw moves every stream on.

    Args:
        seed: of the whole run.
        ids: one key an image.
        purpose: keeps streams of different uses apart; see `fork`.
    """

    def __init__(self, seed: int, ids: Sequence[str], purpose: str = ""):
        self.seed, self.ids, self.purpose = seed, tuple(ids), purpose
        self._streams = [self._stream(key) for key in self.ids]

    def _stream(self, key: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}|{self.purpose}|{key}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def __len__(self) -> int:
        return len(self.ids)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Uniform in [0, 1), `[b, *shape]` with dtype and device of `like`."""
        return self._draw(torch.rand, shape, like).to(like)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal, `[b, *shape]` with dtype and device of `like`."""
        return self._draw(torch.randn, shape, like).to(like)

    def sign(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """-1 or +1, each half of the time, `[b, *shape]` with dtype and device of `like`."""
        return self._draw(torch.rand, shape, like).lt(0.5).to(like) * 2 - 1

    def _draw(self, draw: Callable[..., Tensor], shape: Sequence[int], like: Tensor) -> Tensor:
        if len(self) != len(like):
            raise ShapeError(f"expected one stream an image, got {len(self)} streams for {len(like)} images")
        draws = [draw(tuple(shape), generator=stream) for stream in self._streams]
        return torch.stack(draws) if draws else draw((0, *shape))

    def fork(self, purpose: str) -> "ImageRng":
        """Fresh streams of the same images for another purpose; what was drawn so far does not matter."""
        return ImageRng(self.seed, self.ids, f"{self.purpose}/{purpose}")

    def select(self, indices: Sequence[int]) -> "ImageRng":
        """The streams of some images, shared with this one: a draw there is a draw here."""
        chosen = ImageRng(self.seed, (), self.purpose)
        chosen.ids = tuple(self.ids[i] for i in indices)
        chosen._streams = [self._streams[i] for i in indices]
        return chosen

    def repeat(self, restarts: int) -> "ImageRng":
        """Fresh streams for each restart, restart-major: image i of restart r is entry `r * b + i`."""
        ids = [f"{key}#{r}" if r else key for r in range(restarts) for key in self.ids]
        return ImageRng(self.seed, ids, self.purpose)


def device_of(network: nn.Module) -> torch.device:
    """Where the parameters of a network are, or the CPU for one without."""
    return _first(network).device


def dtype_of(network: nn.Module) -> torch.dtype:
    """What the parameters of a network are, and its images should be; float32 for one without."""
    return _first(network).dtype


def _first(network: nn.Module) -> Tensor:
    return next((p for p in network.parameters() if p.is_floating_point()), torch.zeros((), dtype=torch.float32))


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Within: evaluation mode and no parameter gradients. After: mode and flags of every module as they were."""
    modules = [m for n in networks for m in n.modules()]
    parameters = [p for n in networks for p in n.parameters()]
    modes, flags = [m.training for m in modules], [p.requires_grad for p in parameters]
    try:
        for network in networks:
            network.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


def require_pair(images: Tensor, labels: Tensor) -> None:
    """Raise unless `images [b, 3, h, w]` float and `labels [b, h, w]` int64 belong together."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ShapeError(f"expected float images [b, 3, h, w], got {images.dtype} {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != (len(images), *images.shape[-2:]):
        raise ShapeError(
            f"expected int64 labels {(len(images), *images.shape[-2:])}, got {labels.dtype} {tuple(labels.shape)}; "
            "try labels at the size of the images, void as 255"
        )


__all__ = [
    "IGNORE",
    "Batch",
    "Budget",
    "Dataset",
    "Depth",
    "ImageRng",
    "Images",
    "Intrinsics",
    "LabelSpace",
    "Labels",
    "Logits",
    "Mask",
    "Network",
    "Objective",
    "PerImage",
    "Perturbation",
    "Pose",
    "RobustsegError",
    "Sample",
    "as_255",
    "band_rows",
    "device_of",
    "dtype_of",
    "fraction",
    "frozen",
    "most_likely",
    "require_pair",
]
