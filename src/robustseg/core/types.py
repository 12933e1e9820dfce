"""The conventions, the tensor aliases and the contracts that every room shares.

Conventions, pinned by `test_convention_*`:

* images are RGB float32 in [0, 1], `[b, 3, h, w]`; labels are int64 train ids `[b, h, w]`, void is 255;
* logits are `[b, k, h, w]` at the size of the images, always one tensor;
* depth is in metres along the optical axis; x right, y down, z forward; poses map points of this camera to the other;
* pixel centres have integer coordinates and every resize uses `align_corners=False`.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustseg.core.errors import ShapeError, SpecError, users_code
from robustseg.core.labels import IGNORE, LabelSpace
from robustseg.core.random import ImageRng

Images = Float[Tensor, "b 3 h w"]
Labels = Int64[Tensor, "b h w"]
Logits = Float[Tensor, "b k h w"]
Depth = Float[Tensor, "b h w"]
Pose = Float[Tensor, "b 4 4"]
Intrinsics = Float[Tensor, "b 3 3"]
Mask = Bool[Tensor, "b h w"]
PerImage = Float[Tensor, " b"]

AnyNetwork = TypeVar("AnyNetwork", bound="Network")


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
        code: names of the user's modules that it runs; records keep a digest of them and of what they import.
    """

    def __init__(self, label_space: LabelSpace, spec: str = "network"):
        super().__init__()
        self.label_space = label_space
        self.spec = spec
        self.architecture = spec
        self.files: tuple[Path, ...] = ()
        self.code: tuple[str, ...] = ()

    def predict(self, images: Images) -> Labels:
        """The most likely class of each pixel, `[b, h, w]`, 255 where a logit is NaN or infinite. Networks with huge logits may work in bands."""
        return most_likely(self(images))

    def features(self, images: Images) -> dict[str, Tensor]:
        """Named inner feature maps, `[b, c, h', w']` each; empty where the network names none."""
        return {}

    def members(self, images: Images) -> tuple[Logits, ...]:
        """The logits of each network that this one decides among; most are their own only member."""
        return (self(images),)

    def draw(self, rng: ImageRng) -> "Network":
        """One draw of a randomised network; a network without randomness is its own draw."""
        return self

    def soft(self) -> "Network":
        """A differentiable stand-in for a network that decides hard; most are their own."""
        return self

    def with_(self: AnyNetwork, **changes: Any) -> AnyNetwork:
        """This network with some attributes changed; everything else is shared, parameters too.

        Args:
            changes: new values of attributes, by name. The files and the code of a new part are added to those of the network.

        Returns:
            A copy in the same mode, or the network itself where nothing changes.

        Raises:
            SpecError: the network has no such attribute.
        """
        for name in changes:
            if not hasattr(self, name):
                raise SpecError(f"expected an attribute of {self.spec}, got '{name}'; try building a new network")
        if all(getattr(self, name) is value for name, value in changes.items()):
            return self
        other = copy.copy(self)
        # A module keeps these in dictionaries, which a shallow copy would share.
        other.__dict__.update({name: dict(vars(self)[name]) for name in ("_parameters", "_buffers", "_modules")})
        for name, value in changes.items():
            setattr(other, name, value)
        new = [value for value in changes.values() if isinstance(value, Network)]
        other.files = tuple(dict.fromkeys((*other.files, *(file for network in new for file in network.files))))
        other.code = tuple(dict.fromkeys((*other.code, *(name for network in new for name in network.code))))
        return other


def most_likely(logits: Logits) -> Labels:
    """The class of the largest logit of each pixel, the first of equals: `logits.argmax(1)`, on CPUs six times as fast.

    A pixel with a logit that is NaN or infinite has no prediction: 255, which is no class, so it counts as wrong everywhere.
    """
    classes = logits.shape[1]
    if logits.device.type != "cpu" or not 0 < classes <= IGNORE or not logits.is_floating_point():
        return logits.argmax(1).where(_finite(logits.amin(1), logits.amax(1)), IGNORE)
    # Which class holds the maximum is asked of all classes at once; argmax walks from class to class.
    rank = torch.arange(classes, 0, -1, dtype=logits.dtype).view(-1, 1, 1)  # exact up to 256 in any precision
    found = []
    for band in logits.detach().split(band_rows(logits), 2):
        own = band.clone(memory_format=torch.contiguous_format)
        top = own.amax(1, keepdim=True)
        finite = _finite(own.amin(1), top.squeeze(1))
        first = classes - own.eq_(top).mul_(rank).amax(1)
        found.append(first.long().where(finite, IGNORE))
    return torch.cat(found, 1)


def _finite(low: Tensor, high: Tensor) -> Tensor:
    """Where all logits of a pixel are finite, by the smallest and the largest; NaN is both."""
    return low.isfinite() & high.isfinite()


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
    """Labelled images with a label space, one at a time by index. A subclass writes `__len__` and `__getitem__`.

    Attributes:
        spec: the text that rebuilds it.
        label_space: the classes of its labels.
        ids: one a sample, unique.
        size: (height, width) that every sample is resized to; None: as in the files.
        files: files besides those of the samples that decide what is read, such as a list of classes.
    """

    spec: str
    label_space: LabelSpace
    ids: Sequence[str]
    size: tuple[int, int] | None = None
    files: Sequence[Path] = ()

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def fingerprint(self, index: int) -> str:
        """A digest of what a sample is made of: of its image and labels, or of the files that hold them."""
        sample = self[index]
        values = (x.detach().cpu().contiguous().numpy().tobytes() for x in (sample.image, sample.labels))
        return hashlib.sha256(b"".join(values)).hexdigest()


@runtime_checkable
class Perturbation(Protocol):
    """What moves images: the same shape, dtype and device, within [0, 1] and within its budget.

    Inputs, parameters, gradients and the mode of the network stay untouched; void pixels count for nothing; the same
    `rng` gives the same result, whatever the batch size.
    """

    spec: str

    def __call__(self, network: Network, images: Images, labels: Labels, *, rng: ImageRng) -> Images: ...


class Assessment(NamedTuple):
    """What a monitor says of each image of a batch.

    Args:
        labels: int64 `[b, h, w]`, the answer of the network, corrected where the monitor corrects; 255 where no member
            answered.
        scores: float64 `[b]` on the CPU, how far an image is beyond the thresholds: an alarm from 0 on; NaN where a
            member failed.
        attacked: the member that is judged to be attacked, `none`, or `unknown` where a member failed.
        failed: the members that raised, gave NaN or infinity, or answered in another shape.
        disagreement: `[b, h, w]`, 0 to 1: how much the answers that the monitor compares disagree at each pixel.
        suspicion: `[b]` for each name: the numbers that thresholds are fitted to, larger is more suspicious.
        tiles: `[b, rows, columns]`, the statistic of each tile; a monitor that judges whole images has one tile.
    """

    labels: Labels
    scores: Tensor
    attacked: list[str]
    failed: list[tuple[str, ...]]
    disagreement: Tensor
    suspicion: dict[str, Tensor]
    tiles: Tensor

    @property
    def alarm(self) -> Tensor:
        """Whether an attack was noticed, bool `[b]`; never where a member failed."""
        return self.scores >= 0


@runtime_checkable
class Monitor(Protocol):
    """A network that says of each image whether it is attacked. `testing.check_monitor` checks this contract."""

    def score(self, images: Images) -> PerImage:
        """How far each image is beyond the thresholds, `[b]`: an alarm from 0 on (`Assessment.scores`)."""
        ...

    def fit(self, data: Dataset, *, rate: float = ..., batch_size: int = ...) -> "Monitor":
        """The same monitor with thresholds for a false-alarm rate on images like these clean ones."""
        ...

    def watch(self, images: Images) -> Assessment:
        """The labels of the images together with the assessment of each image."""
        ...


Objective = Callable[[Network, Tensor, Tensor], Tensor]
"""What an attack maximises: `(network, images, labels) -> [b]`."""


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


def gradient_in(values: Tensor, images: Tensor) -> Tensor | None:
    """The gradient of the sum of `values` in the images they were computed from; None where none flows.

    Raises:
        RobustsegError: a module on the way has no working backward pass.
    """
    if not values.requires_grad:
        return None
    with users_code("a gradient in the images", "a network without custom backward passes or in-place changes"):
        # A sum, so that an image's gradient does not depend on the rest of the batch.
        return torch.autograd.grad(values.sum(), images, allow_unused=True)[0]


@contextmanager
def unchanged(*networks: nn.Module) -> Iterator[None]:
    """Within: forward passes may update buffers, such as running means. After: every buffer as it was."""
    kept = [
        (m, {n: (b, b.clone()) for n, b in m.named_buffers(recurse=False)}) for net in networks for m in net.modules()
    ]
    try:
        yield
    finally:
        with torch.inference_mode():  # where everything may be written, also what was made in inference mode
            for module, buffers in kept:
                for name in {name for name, _ in module.named_buffers(recurse=False)} - set(buffers):
                    setattr(module, name, None)
                for name, (buffer, value) in buffers.items():
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)
                    setattr(module, name, buffer)


def require_pair(images: Tensor, labels: Tensor) -> None:
    """Raise unless `images [b, 3, h, w]` float and `labels [b, h, w]` int64 belong together."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ShapeError(f"expected float images [b, 3, h, w], got {images.dtype} {tuple(images.shape)}")
    if labels.dtype != torch.int64 or labels.shape != (len(images), *images.shape[-2:]):
        raise ShapeError(
            f"expected int64 labels {(len(images), *images.shape[-2:])}, got {labels.dtype} {tuple(labels.shape)}; "
            "try labels at the size of the images, void as 255"
        )
