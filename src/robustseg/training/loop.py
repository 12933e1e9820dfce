"""Supervised training on Lightning Fabric: one loop that resumes exactly, in any number of processes.

A step depends on (seed, step) alone (see `robustseg.training.resumable`), so a run that was cut goes on bit for bit on a
CPU. Several processes see the batches of one and share batch statistics and the mean of the loss, so they train like one
but for rounding and for dropout, whose masks each process draws for its own images.
"""

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from robustseg import metrics
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.views import batches
from robustseg.networks import weights
from robustseg.networks.fast import fast
from robustseg.networks.passes import counted
from robustseg.records import IGNORE, Counts, RobustsegError, json_line, make_folder, read_lines, write_whole
from robustseg.training.adversarial import Adversary, attack_precision, drift, overfitted
from robustseg.training.resumable import Batches, Checkpoint, Remembered, identity, layer_draws
from robustseg.training.synced import sync_batch_norm
from robustseg.types import Batch, Dataset, ImageRng, Network, Perturbation, frozen

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
    """What the loop tells of each step.

    Epochs and steps count from 1; `passes`: forwards and backwards an image, the attack's among them; `held_out` only
    where it was measured.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    passes: float
    held_out: "HeldOut | None" = None


@dataclass(frozen=True)
class HeldOut:
    """mIoU on the held-out data: clean and, in adversarial training, after many steps and after one (see `Adversary.checks`)."""

    miou: float
    robust_miou: float | None = None
    single_step_miou: float | None = None

    @property
    def rank(self) -> float:
        """By which the best weights are chosen: robust mIoU, or clean mIoU where nothing attacks."""
        return self.miou if self.robust_miou is None else self.robust_miou

    @property
    def overfitted(self) -> bool:
        """Whether the network holds against one step only, see `adversarial.overfitted`."""
        if self.robust_miou is None or self.single_step_miou is None:
            return False
        return overfitted(self.robust_miou, self.single_step_miou)


def train(
    network: Network,
    data: Dataset,
    *,
    holdout: Dataset,
    folder: str | Path,
    recipe: Recipe | None = None,
    adversary: Adversary | None = None,
    fabric: Fabric | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Path:
    """Train a network with labels and keep the best by mIoU on held-out data, under attack if it is trained under one.

    Writes `FOLDER/best.safetensors` (network, classes, recipe), `FOLDER/history.jsonl` (one line a check) and
    `FOLDER/last.ckpt`, from which an interrupted run goes on.

    Args:
        network: trained in place; its label space must be the data's. Outputs after those of the classes weigh 1.
        data, holdout: labelled images; choose `holdout` from training data, never from test. Images that fill no whole
            batch are left out of an epoch; data of fewer images than a batch are one smaller batch.
        folder: of the results; an unfinished run in it is continued.
        adversary: what attacks the images of each batch; None: nothing.
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
    make_folder(folder)
    run = _Run(network, data, holdout, folder, recipe, fabric, adversary)
    run.resume()
    while run.epoch < recipe.epochs:
        for event in run.train_epoch():
            if run.fabric.is_global_zero:
                on_step(event)
    return run.best_path


class _Run:
    """The state of one training: everything that moves, in one place, so that a checkpoint is its `__dict__`."""

    def __init__(
        self,
        network: Network,
        data: Dataset,
        holdout: Dataset,
        folder: Path,
        recipe: Recipe,
        fabric: Fabric,
        adversary: Adversary | None = None,
    ):
        self.adversary = adversary
        self.data, self.holdout, self.folder, self.recipe, self.fabric = data, holdout, folder, recipe, fabric
        self.epoch, self.best = 0, -math.inf
        augment = Augmentation(recipe.crop, recipe.scale, recipe.flip, recipe.colour)
        self.batches = Batches(data, augment, batch_size=recipe.batch_size, seed=recipe.seed, fabric=fabric)
        self.steps = self.batches.per_epoch * recipe.epochs
        class_weights = _class_weights(self.batches.samples, len(data.label_space), recipe.balance)
        self.class_weights = fabric.to_device(class_weights)
        self.network = network.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(network)
        fabric.to_device(self.average)
        trained = sync_batch_norm(self.network) if fabric.world_size > 1 else self.network
        optimizer = torch.optim.AdamW(trained.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.model, self.optimizer = fabric.setup(trained, optimizer)
        self.checkpoint = Checkpoint(
            folder / "last.ckpt",
            fabric,
            recipe=dataclasses.asdict(recipe),
            conditions={
                "network spec": network.spec,
                "data": identity(data),
                "held-out data": identity(holdout),
                "adversary": None if adversary is None else str(adversary),
            },
        )

    @property
    def best_path(self) -> Path:
        return self.folder / "best.safetensors"

    def train_epoch(self) -> Iterator[Step]:
        self.model.train()
        epoch = self.epoch + 1
        start = self.epoch * self.batches.per_epoch
        for step in range(start, start + self.batches.per_epoch):
            rate = self.recipe.learning_rate * (1 - step / self.steps) ** 0.9
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            batch = self.batches[step]
            with counted([self.network]) as passes:
                loss = self._step(batch, step)
            passed = (passes.forwards + passes.backwards) / len(batch.images)
            last = step + 1 == start + self.batches.per_epoch
            held_out = self._finish_epoch() if last else None
            yield Step(epoch, step + 1, self.steps, loss, rate, passed, held_out)

    def _step(self, batch: Batch, step: int) -> float:
        batch = batch.to(self.fabric.device)
        images, labels, trades = batch.images, batch.labels, 0.0
        if self.adversary:
            epoch, trades = step / self.batches.per_epoch, self.adversary.trades
            moved = self.adversary.moved(self.network, batch, epoch=epoch, seed=self.recipe.seed, fabric=self.fabric)
            images = torch.cat([images, moved.images]) if trades else moved.images
        with layer_draws(self.recipe.seed, step, self.fabric):
            answers = self.model(images.contiguous(memory_format=torch.channels_last)).float()
        logits, *attacked = answers.split(len(labels))
        others = logits.shape[1] - len(self.class_weights)
        class_weights = F.pad(self.class_weights, (0, others), value=1.0)
        pixel_losses = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="sum")
        weight = self.class_weights[labels[labels != IGNORE]].sum()
        for moved_logits in attacked:
            weights_of_pixels = self.class_weights[labels.where(labels != IGNORE, 0)] * (labels != IGNORE)
            pixel_losses = pixel_losses + trades * drift(logits, moved_logits, weights_of_pixels)
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

    def _finish_epoch(self) -> HeldOut | None:
        self.epoch += 1
        held_out = None
        if self.epoch % self.recipe.check_every == 0 or self.epoch == self.recipe.epochs:
            attacks = self.adversary.checks() if self.adversary else ()
            measured = (_measure(self.average, self.holdout, self.fabric, attack) for attack in (None, *attacks))
            held_out = HeldOut(*map(metrics.miou, measured))
        if self.fabric.is_global_zero:
            if held_out is not None:
                self._keep(held_out)
            self._save()
        self.fabric.barrier()
        return held_out

    def _keep(self, held_out: HeldOut) -> None:
        path = self.folder / "history.jsonl"
        # What a run wrote after its last checkpoint and before it was cut comes again.
        lines = [line for line in read_lines(path) if line["epoch"] < self.epoch] if path.is_file() else []
        figures = {name: value for name, value in dataclasses.asdict(held_out).items() if value is not None}
        lines.append({"epoch": self.epoch, **figures, "time": time.time()})
        write_whole(path, "".join(map(json_line, lines)))
        if held_out.rank > self.best:
            self.best = held_out.rank
            recipe = dataclasses.asdict(self.recipe)
            notes: dict[str, Any] = {f"holdout_{name}": value for name, value in figures.items()}
            if self.adversary:
                recipe["adversary"] = dataclasses.asdict(self.adversary)
                notes["holdout_attack"] = self.adversary.checks()[0].spec
            weights.save(
                self.average,
                self.best_path,
                recipe=recipe,
                data=self.data.spec,
                holdout=self.holdout.spec,
                **notes,
                epoch=self.epoch,
            )

    def _save(self) -> None:
        self.checkpoint.save(
            network=self.network.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            epoch=self.epoch,
            best=self.best,
        )

    def resume(self) -> None:
        """Go on where the folder's checkpoint stands, if it has one.

        Raises:
            RobustsegError: the checkpoint is torn, or of a run under other conditions.
        """
        state = self.checkpoint.load("network", "average", "optimizer", "epoch", "best")
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best = state["epoch"], state["best"]
        log.info("resumed at epoch %d", self.epoch)


def _class_weights(samples: Remembered, classes: int, balance: bool) -> Tensor:
    if not balance:
        return torch.ones(classes)
    pixels = torch.zeros(classes, dtype=torch.int64)
    for index in range(len(samples)):
        labels = samples[index].labels
        pixels += torch.bincount(labels[labels != IGNORE], minlength=classes)
    share = pixels.double() / pixels.sum().clamp_min(1)
    return (1 / torch.log(1.1 + share)).float()


def _measure(network: Network, data: Dataset, fabric: Fabric, attack: Perturbation | None = None) -> Counts:
    classes = len(data.label_space)
    counts = Counts.empty(classes)
    guide = fast(network) if attack else network
    for batch in batches(data, 8):
        batch = batch.to(fabric.device)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        if attack:
            with attack_precision(fabric):
                images = attack(guide, images, batch.labels, rng=ImageRng(0, batch.ids))
        with frozen(network), torch.inference_mode():
            predictions = network.predict(images).cpu().numpy()
        counts += metrics.count(batch.labels.cpu().numpy(), predictions, batch.ids, classes)
    return counts
