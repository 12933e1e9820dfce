"""Exact resume: batches and random draws by the number of the step, conditions that hold, and checkpoints that are whole.

A step depends on (seed, step) alone: the order of the images is a permutation drawn from (seed, epoch), augmentation is
drawn from the image's own stream, and what layers draw (dropout) from a generator seeded by the step. So no random state
needs to be stored.
"""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.files import sole_writer, write_whole
from robustseg.core.folders import claim
from robustseg.core.levels import to_8bit
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Dataset, Sample
from robustseg.datasets import read
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.views import content


class Batches:
    """This process's part of the batch of each step, by its number: the same images, augmented alike, at every call.

    Images that fill no whole batch are left out of an epoch; data of fewer images than a batch are one smaller batch.

    Args:
        data: images may differ in size; each is read once (see `Remembered`).
        augment: what is done to each image. batch_size: images a step, over all processes. seed: of order and draws.
        fabric: says which process this is.
        extras: names of what else of a sample is kept; each sample needs all of them.

    Attributes:
        per_epoch: batches an epoch.

    Raises:
        RobustsegError: there are no images, or fewer in a batch than processes; later, as for `Remembered`.
    """

    def __init__(
        self,
        data: Dataset,
        augment: Augmentation,
        *,
        batch_size: int,
        seed: int,
        fabric: Fabric,
        extras: Collection[str] = (),
    ):
        if not len(data):
            raise RobustsegError(f"expected images to train on, got none in '{data.spec}'; try another split")
        self.size = min(batch_size, len(data))
        if self.size < fabric.world_size:
            raise RobustsegError(
                f"expected at least one image a process in each batch, got {fabric.world_size} processes for batches "
                f"of {self.size}; try fewer devices or a larger batch size"
            )
        self.samples, self.augment, self.seed = Remembered(data, extras), augment, seed
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.per_epoch = len(data) // self.size

    def __getitem__(self, step: int) -> Batch:
        """The part of the batch of a step; steps count from 0."""
        epoch, i = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples)).tolist()
        chosen = order[i * self.size : (i + 1) * self.size][self.rank :: self.world]
        return Batch.of([self._drawn(index, epoch) for index in chosen])

    def _drawn(self, index: int, epoch: int) -> Sample:
        rng = ImageRng(self.seed, [self.samples.data.ids[index]], f"train/{epoch}")
        return self.augment(self.samples[index], rng)


CACHE_BYTES = 4e9
"""Memory for the images of one data set."""


class Remembered:
    """A data set whose images are rounded to 8 bit and stay in memory, once read, while they fit in `CACHE_BYTES`.

    An image that does not fit is read and rounded again each time, so it does not matter which ones fit.

    Args:
        extras: names of what else of a sample is kept: images of its size, or small tensors.

    Raises:
        RobustsegError: when read, an image or an extra is not finite. SpecError: an extra is not there.
    """

    def __init__(self, data: Dataset, extras: Collection[str] = ()):
        self.data, self.extras, self.free = data, tuple(extras), CACHE_BYTES
        self.known: dict[int, _Packed] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        packed = self.known.get(index)
        if packed is None:
            packed = _packed(self._read(index))
            size = sum(x.numel() * x.element_size() for x in (packed.image, packed.labels, *packed.extras.values()))
            if size <= self.free:
                self.free -= size
                self.known[index] = packed
        extras = {name: x.float() / 255 if x.dtype == torch.uint8 else x for name, x in packed.extras.items()}
        return Sample(packed.image.float() / 255, packed.labels.to(torch.int64), self.data.ids[index], extras)

    def _read(self, index: int) -> Sample:
        sample = read(self.data, index)
        missing = [name for name in self.extras if name not in sample.extras]
        if missing:
            raise SpecError(
                f"expected '{missing[0]}' of each sample, got none for '{sample.id}' of {self.data.spec}; "
                "try video data, such as streets(neighbours=True)"
            )
        extras = {name: sample.extras[name] for name in self.extras}
        for x in (sample.image, *extras.values()):
            if not torch.isfinite(x).all():
                raise RobustsegError(
                    f"expected finite values, got NaN or infinity in '{sample.id}' of {self.data.spec}; "
                    "try leaving this sample out"
                )
        return Sample(sample.image, sample.labels, sample.id, extras)


class _Packed(NamedTuple):
    """A sample whose images and labels are 8-bit values."""

    image: Tensor
    labels: Tensor
    extras: dict[str, Tensor]


def _packed(sample: Sample) -> _Packed:
    extras = {name: to_8bit(x) if x.shape == sample.image.shape else x for name, x in sample.extras.items()}
    return _Packed(to_8bit(sample.image), sample.labels.to(torch.uint8), extras)


@contextmanager
def layer_draws(seed: int, step: int, fabric: Fabric) -> Iterator[None]:
    """Within: what layers draw (dropout) depends on (seed, step, process). The caller's generator is untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(hash((seed, step, fabric.global_rank)) & 0x7FFFFFFF)
        yield


@contextmanager
def begun(head: Path, fabric: Fabric, about: Mapping[str, Any], files: Sequence[str]) -> Iterator[None]:
    """Within: the training of this folder, which no other one writes to, begun now or resumed under the same conditions.

    Args:
        head, about, files: see `core.folders.claim`.
        fabric: every process raises what the first one finds.

    Raises:
        RobustsegError: another process writes there, the folder holds something else, or a run under other conditions.
    """
    refused = ""
    with ExitStack() as stack:
        if fabric.is_global_zero:
            try:
                stack.enter_context(sole_writer(head.parent))
                claim(head, about, files)
            except RobustsegError as error:
                refused = str(error)
        if refused := str(fabric.broadcast(refused)):
            raise RobustsegError(refused)
        yield


class Checkpoint:
    """The file from which an interrupted run resumes.

    Args:
        path: of the file. fabric: its loss scale is kept too.
    """

    def __init__(self, path: Path, fabric: Fabric):
        self.path, self.fabric = path, fabric

    def save(self, **state: Any) -> None:
        """Write it, whole or not at all."""
        file = io.BytesIO()
        torch.save({**state, "scaler": self.fabric.strategy.precision.state_dict()}, file)
        write_whole(self.path, file.getvalue())

    def load(self, *names: str) -> dict[str, Any] | None:
        """What `save` was given under these names; None where there is no checkpoint.

        Raises:
            RobustsegError: the checkpoint is torn.
        """
        if not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            parts = {name: state[name] for name in names}
        except Exception as error:  # there is no telling what reading a torn file raises
            raise RobustsegError(
                f"expected a whole checkpoint, got a torn or foreign '{self.path}' ({type(error).__name__}); "
                "try another folder, or remove the file to start again"
            ) from error
        if state.get("scaler"):
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        return parts


def identity(data: Dataset) -> str:
    """What tells a data set from others: its spec, the size it is seen at, and a digest of its images and masks."""
    seen = f" at {data.size[0]}x{data.size[1]}" if data.size else ""
    return f"{data.spec}{seen}, {len(data)} images with content {content(data).digest}"


def processes_of(fabric: Fabric) -> dict[str, Any]:
    """What a run keeps of its processes from the first step to the last."""
    return {"precision": str(fabric.strategy.precision.precision), "processes": fabric.world_size}
