"""Supervised training on Lightning Fabric: one loop that resumes exactly, in any number of processes.

A step depends on (seed, step) alone: the order of the images is a permutation drawn from (seed, epoch), augmentation is
drawn from the image's own stream, and what layers draw (dropout) from a generator seeded by the step. So a run that was
cut goes on bit for bit on a CPU, and nothing of the random state needs to be stored. Several processes see the batches
of one and share batch statistics and the mean of the loss, so they train like one but for rounding and for dropout,
whose masks each process draws for its own images.
"""

import copy
import dataclasses
import hashlib
import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from robustseg import metrics
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.views import batches
from robustseg.networks import weights
from robustseg.records import IGNORE, Counts, RobustsegError, json_line, read_lines, write_whole
from robustseg.training.synced import sync_batch_norm
from robustseg.types import Batch, Dataset, ImageRng, Network, Sample, frozen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults suit a small network from scratch.

    Args:
        epochs: passes over the data. batch_size: images a step, over all processes.
        crop: (height, width) of what the network sees. scale, flip, colour: see `robustseg.datasets.augment`.
        learning_rate: at the start, falling as (1 - step / steps)^0.9 (poly). weight_decay: of AdamW.
        balance: weight each class by 1 / log(1.1 + its share of pixels) in the loss (Paszke et al. 2016, with 1.1).
        ema: decay a step of the averaged weights, which are what is kept; 0 keeps the weights themselves.
        check_every: epochs between two measurements on the held-out data.
        seed: of order, augmentation and dropout.
    """

    epochs: int = 60
    batch_size: int = 12
    crop: tuple[int, int] = (180, 240)
    scale: tuple[float, float] = (0.75, 1.5)
    flip: bool = True
    colour: float = 0.3
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    balance: bool = True
    ema: float = 0.998
    check_every: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.check_every < 1:
            raise RobustsegError(
                f"expected at least one epoch, one image a batch and one epoch between checks, got {self.epochs}, "
                f"{self.batch_size} and {self.check_every}; try the defaults"
            )
        if min(self.crop) < 1 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise RobustsegError(
                f"expected a crop of at least 1x1 and 0 < lowest <= highest scale, got {self.crop[0]}x{self.crop[1]} and "
                f"{self.scale[0]} to {self.scale[1]}; try crop=(180, 240) and scale=(0.75, 1.5)"
            )
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise RobustsegError(
                f"expected a learning rate > 0 and a weight decay >= 0, got {self.learning_rate} and "
                f"{self.weight_decay}; try 1e-3 and 1e-4"
            )
        if not (0 <= self.ema < 1 and 0 <= self.colour <= 1):
            raise RobustsegError(
                f"expected 0 <= ema < 1 and 0 <= colour <= 1, got {self.ema} and {self.colour}; try 0.998 and 0.3"
            )


@dataclass(frozen=True)
class Step:
    """What the loop tells of each step; epochs and steps count from 1; `miou` (held out) only where it was measured."""

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    miou: float | None = None


def train(
    network: Network,
    data: Dataset,
    *,
    holdout: Dataset,
    folder: str | Path,
    recipe: Recipe | None = None,
    fabric: Fabric | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Path:
    """Train a network with labels and keep the best by mIoU on held-out data.

    Writes `FOLDER/best.safetensors` (network, classes, recipe), `FOLDER/history.jsonl` (one line a check) and
    `FOLDER/last.ckpt`, from which an interrupted run goes on.

    Args:
        network: trained in place; its label space must be the data's. Outputs after those of the classes weigh 1.
        data, holdout: labelled images; choose `holdout` from training data, never from test. Images that fill no whole
            batch are left out of an epoch; data of fewer images than a batch are one smaller batch.
        folder: of the results; an unfinished run in it is continued.
        fabric: device, precision and processes; launched already. Default: one process on the CPU.
        on_step: called after each step, on the first process.

    Returns:
        The path of the best weights.

    Raises:
        LabelSpaceMismatch: network and data differ. RobustsegError: there are no images or fewer than processes, the
            folder cannot be written, its checkpoint is torn, or it holds a run under other conditions.
    """
    recipe, folder = recipe or Recipe(), Path(folder)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    for dataset, name in ((data, data.spec), (holdout, holdout.spec)):
        network.label_space.require_same(dataset.label_space, mine=network.spec, theirs=name)
        if not len(dataset):
            raise RobustsegError(f"expected labelled images, got none in '{name}'; try another split")
    if min(recipe.batch_size, len(data)) < fabric.world_size:
        raise RobustsegError(
            f"expected at least one image a process in each batch, got {fabric.world_size} processes for batches of "
            f"{min(recipe.batch_size, len(data))}; try fewer devices or a larger batch size"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RobustsegError(f"expected a folder '{folder}', got '{error.strerror}'; try another --out") from error
    run = _Run(network, data, holdout, folder, recipe, fabric)
    run.resume()
    while run.epoch < recipe.epochs:
        for event in run.train_epoch():
            if run.fabric.is_global_zero:
                on_step(event)
    return run.best_path


class _Run:
    """The state of one training: everything that moves, in one place, so that a checkpoint is its `__dict__`."""

    def __init__(self, network: Network, data: Dataset, holdout: Dataset, folder: Path, recipe: Recipe, fabric: Fabric):
        self.data, self.holdout, self.folder, self.recipe, self.fabric = data, holdout, folder, recipe, fabric
        self.epoch, self.best = 0, -math.inf
        self.steps_per_epoch = max(1, len(data) // recipe.batch_size)
        self.steps = self.steps_per_epoch * recipe.epochs
        self.samples = _Remembered(data)
        self.augment = Augmentation(recipe.crop, recipe.scale, recipe.flip, recipe.colour)
        self.class_weights = fabric.to_device(_class_weights(self.samples, len(data.label_space), recipe.balance))
        self.network = network.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(network)
        fabric.to_device(self.average)
        trained = sync_batch_norm(self.network) if fabric.world_size > 1 else self.network
        optimizer = torch.optim.AdamW(trained.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.model, self.optimizer = fabric.setup(trained, optimizer)

    @property
    def best_path(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "last.ckpt"

    def train_epoch(self) -> Iterator[Step]:
        self.model.train()
        epoch = self.epoch + 1
        for i, batch in enumerate(self._batches()):
            step = self.epoch * self.steps_per_epoch + i
            rate = self.recipe.learning_rate * (1 - step / self.steps) ** 0.9
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._step(batch, step)
            last = i + 1 == self.steps_per_epoch
            miou = self._finish_epoch() if last else None
            yield Step(epoch, step + 1, self.steps, loss, rate, miou)

    def _step(self, batch: Batch, step: int) -> float:
        batch = batch.to(self.fabric.device)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with torch.random.fork_rng():  # dropout draws from (seed, step, process); the caller's generator is untouched
            torch.manual_seed(hash((self.recipe.seed, step, self.fabric.global_rank)) & 0x7FFFFFFF)
            logits = self.model(images).float()
        others = logits.shape[1] - len(self.class_weights)
        class_weights = F.pad(self.class_weights, (0, others), value=1.0)
        pixel_losses = F.cross_entropy(logits, batch.labels, class_weights, ignore_index=IGNORE, reduction="sum")
        weight = self.class_weights[batch.labels[batch.labels != IGNORE]].sum()
        whole_weight = self._over_processes(weight, "sum")
        # gradients are averaged over processes, so each loss is its share of the mean over the whole batch
        loss = pixel_losses / whole_weight.clamp_min(1e-6) * self.fabric.world_size
        if not torch.isfinite(loss):
            raise RobustsegError(
                f"expected a finite loss, got {loss.item()} at step {step}; try a smaller learning rate or float32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self._update_average(step)
        return float(self._over_processes(loss, "mean"))

    def _over_processes(self, value: Tensor, how: str) -> Tensor:
        return torch.as_tensor(self.fabric.all_reduce(value.detach().clone(), reduce_op=how))

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.recipe.ema, (1 + step) / (10 + step))  # a young average forgets faster
        for mean, new in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)
            else:
                mean.copy_(new)

    def _batches(self) -> Iterator[Batch]:
        """This process's part of each batch of the epoch."""
        order = np.random.default_rng((self.recipe.seed, self.epoch)).permutation(len(self.data)).tolist()
        size, rank, world = self.recipe.batch_size, self.fabric.global_rank, self.fabric.world_size
        for i in range(self.steps_per_epoch):
            chosen = order[i * size : (i + 1) * size][rank::world]
            samples = []
            for index in chosen:
                rng = ImageRng(self.recipe.seed, [self.data.ids[index]], f"train/{self.epoch}")
                samples.append(self.augment(self.samples[index], rng))
            yield Batch.of(samples)

    def _finish_epoch(self) -> float | None:
        self.epoch += 1
        miou = None
        if self.epoch % self.recipe.check_every == 0 or self.epoch == self.recipe.epochs:
            miou = metrics.miou(_measure(self.average, self.holdout, self.fabric.device))
        if self.fabric.is_global_zero:
            if miou is not None:
                self._keep(miou)
            self._save()
        self.fabric.barrier()
        return miou

    def _keep(self, miou: float) -> None:
        path = self.folder / "history.jsonl"
        # What a run wrote after its last checkpoint and before it was cut comes again.
        lines = [line for line in read_lines(path) if line["epoch"] < self.epoch] if path.is_file() else []
        lines.append({"epoch": self.epoch, "miou": miou, "time": time.time()})
        write_whole(path, "".join(map(json_line, lines)))
        if miou > self.best:
            self.best = miou
            weights.save(
                self.average,
                self.best_path,
                recipe=dataclasses.asdict(self.recipe),
                data=self.data.spec,
                holdout=self.holdout.spec,
                holdout_miou=miou,
                epoch=self.epoch,
            )

    def _save(self) -> None:
        state = {
            **self._conditions(),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
        }
        file = io.BytesIO()
        torch.save(state, file)
        write_whole(self.checkpoint_path, file.getvalue())

    def _conditions(self) -> dict[str, Any]:
        """What a run keeps from its first step to its last, however often it is cut."""
        return {
            "recipe": json_line(dataclasses.asdict(self.recipe)),
            "network spec": self.network.spec,
            "data": _identity(self.data),
            "held-out data": _identity(self.holdout),
            "precision": str(self.fabric.strategy.precision.precision),
            "processes": self.fabric.world_size,
        }

    def resume(self) -> None:
        """Go on where the folder's checkpoint stands, if it has one.

        Raises:
            RobustsegError: the checkpoint is torn, or of a run under other conditions.
        """
        if not self.checkpoint_path.is_file():
            return
        try:
            state: dict[str, Any] = torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
            parts = {name: state[name] for name in ("recipe", "network", "average", "optimizer", "epoch", "best")}
        except Exception as error:  # there is no telling what reading a torn file raises
            raise RobustsegError(
                f"expected a whole checkpoint, got a torn or foreign '{self.checkpoint_path}' ({type(error).__name__}); "
                "try another folder, or remove the file to start again"
            ) from error
        self._require_same_conditions(state)
        self.network.load_state_dict(parts["network"])
        self.average.load_state_dict(parts["average"])
        self.optimizer.load_state_dict(parts["optimizer"])
        if state.get("scaler"):
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.epoch, self.best = parts["epoch"], parts["best"]
        log.info("resumed at epoch %d", self.epoch)

    def _require_same_conditions(self, state: dict[str, Any]) -> None:
        here = self._conditions()
        there = {name: state.get(name, value) for name, value in here.items()}
        for conditions in (here, there):
            conditions.update(json.loads(conditions.pop("recipe")))
        for name, value in here.items():
            if there.get(name) != value:
                raise RobustsegError(
                    f"expected {name} {there.get(name)!r} of the run in '{self.folder}', got {value!r}; "
                    "try another folder, or the same again"
                )


def _identity(data: Dataset) -> str:
    """What tells a data set from others: its spec, the size it is seen at, and a hash of its image ids."""
    size = getattr(data, "size", None)
    seen = f" at {size[0]}x{size[1]}" if size else ""
    return f"{data.spec}{seen}, {len(data)} images ({hashlib.sha256(chr(10).join(data.ids).encode()).hexdigest()[:12]})"


class _Remembered:
    """A data set whose images, read once, stay in memory as 8-bit values while they fit in 4 GB."""

    def __init__(self, data: Dataset, most_bytes: float = 4e9):
        self.data, self.free = data, most_bytes
        self.known: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        if index not in self.known:
            sample = self.data[index]
            image, labels = (sample.image * 255).round().to(torch.uint8), sample.labels.to(torch.uint8)
            if self.free < image.numel() + labels.numel():
                return sample
            self.free -= image.numel() + labels.numel()
            self.known[index] = image, labels
        image, labels = self.known[index]
        return Sample(image.float() / 255, labels.to(torch.int64), self.data.ids[index])


def _class_weights(samples: _Remembered, classes: int, balance: bool) -> Tensor:
    if not balance:
        return torch.ones(classes)
    pixels = torch.zeros(classes, dtype=torch.int64)
    for index in range(len(samples)):
        labels = samples[index].labels
        pixels += torch.bincount(labels[labels != IGNORE], minlength=classes)
    share = pixels.double() / pixels.sum().clamp_min(1)
    return (1 / torch.log(1.1 + share)).float()


def _measure(network: Network, data: Dataset, device: torch.device) -> Counts:
    classes = len(data.label_space)
    counts = Counts.empty(classes)
    with frozen(network), torch.inference_mode():
        for batch in batches(data, 8):
            images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
            predictions = network.predict(images).cpu().numpy()
            counts += metrics.count(batch.labels.numpy(), predictions, batch.ids, classes)
    return counts
