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
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line, make_folder, read_lines, write_whole
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Dataset, Network, Perturbation, frozen
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.triplets import frames_of
from robustseg.datasets.views import batches
from robustseg.networks import weights
from robustseg.networks.fast import fast
from robustseg.networks.motion import Answers
from robustseg.networks.passes import counted
from robustseg.results import metrics
from robustseg.results.record import Counts
from robustseg.training.adversarial import Adversary, attack_precision, drift, overfitted
from robustseg.training.events import Events
from robustseg.training.multitask import DepthTask, SecondTask
from robustseg.training.recipe import Recipe
from robustseg.training.resumable import Batches, Checkpoint, Remembered, identity, layer_draws
from robustseg.training.synced import sync_batch_norm

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What the loop tells of each step.

    Epochs and steps count from 1; `passes`: forwards and backwards an image, the attack's and the video's among them;
    `depth_loss`, the part of the loss that is the video's, and `masked`, the share of its pixels that motion does not
    explain, where depth is learned; `held_out` only where it was measured.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    passes: float
    depth_loss: float | None = None
    masked: float | None = None
    held_out: "HeldOut | None" = None


@dataclass(frozen=True)
class HeldOut:
    """mIoU on the held-out data: clean and, in adversarial training, after many steps and after one (see `Adversary.checks`).

    Where depth is learned without labels, the loss of view synthesis and no mIoU (NaN).
    """

    miou: float
    robust_miou: float | None = None
    single_step_miou: float | None = None
    depth_loss: float | None = None

    @property
    def rank(self) -> float:
        """By which the best weights are chosen: robust mIoU, or clean mIoU where nothing attacks, or the loss without labels."""
        if self.depth_loss is not None:
            return -self.depth_loss
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
    depth: DepthTask | None = None,
    fabric: Fabric | None = None,
    tensorboard: bool = False,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Path:
    """Train a network with labels and keep the best by mIoU on held-out data, under attack if it is trained under one.

    With video it learns depth beside the labels or, with a weight of 1, alone; the best is then that whose view synthesis
    loses least on held-out video.

    Writes `FOLDER/best.safetensors` (network, classes, recipe), `FOLDER/history.jsonl` (one line a check) and
    `FOLDER/last.ckpt`, from which an interrupted run goes on.

    Args:
        network: trained in place; its label space must be the data's. Outputs after those of the classes weigh 1.
        data, holdout: labelled images; choose `holdout` from training data, never from test. Images that fill no whole
            batch are left out of an epoch; data of fewer images than a batch are one smaller batch. Where depth is learned
            alone, `holdout` is video like its own, and `data` is not read.
        folder: of the results; an unfinished run in it is continued.
        adversary: what attacks the images of each batch; None: nothing.
        depth: a second task for a `multitask` network, with as many frames of video a step as images; None: labels alone.
        fabric: device, precision and processes; launched already. Default: one process on the CPU.
        tensorboard: also write event files into the folder: curves and, of the same frames at each check, what is seen.
        on_step: called after each step, on the first process.

    Returns:
        The path of the best weights.

    Raises:
        LabelSpaceMismatch: network and data differ. RobustsegError: there are no images or fewer than processes, the
            folder cannot be written, its checkpoint is torn, or it holds a run under other conditions; a loss is no number
            (the last checkpoint stays); the video is not that of a moving camera, or as for `multitask.SecondTask`.
            MissingExtra: events are wanted without TensorBoard.
    """
    recipe, folder = recipe or Recipe(), Path(folder)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    for dataset, name in ((data, data.spec), (holdout, holdout.spec)):
        network.label_space.require_same(dataset.label_space, mine=network.spec, theirs=name)
        if not len(dataset):
            raise RobustsegError(f"expected labelled images, got none in '{name}'; try another split")
    make_folder(folder)
    run = _Run(network, data, holdout, folder, recipe, fabric, adversary, depth)
    run.resume()
    events = Events(folder, done=run.epoch * run.batches.per_epoch) if tensorboard and fabric.is_global_zero else None
    while run.epoch < recipe.epochs:
        for step in run.train_epoch():
            if events:
                run.show(step, events)
            if fabric.is_global_zero:
                on_step(step)
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
        depth: DepthTask | None = None,
    ):
        self.adversary, self.depth = adversary, depth
        self.data, self.holdout, self.folder, self.recipe, self.fabric = data, holdout, folder, recipe, fabric
        self.epoch, self.best = 0, -math.inf
        augment = Augmentation(recipe.crop, recipe.scale, recipe.flip, recipe.colour)
        how: dict[str, Any] = {
            "augment": augment,
            "batch_size": recipe.batch_size,
            "seed": recipe.seed,
            "fabric": fabric,
        }
        self.network = network.to(memory_format=torch.channels_last)
        self.second = SecondTask(depth, network, **how) if depth else None
        self.trained: nn.Module = self.second.trained if self.second else self.network
        alone = self.second is not None and self.second.alone
        self.batches = self.second.batches if self.second and alone else Batches(data, **how)
        self.steps = self.batches.per_epoch * recipe.epochs
        class_weights = _class_weights(self.batches.samples, len(data.label_space), recipe.balance and not alone)
        self.class_weights = fabric.to_device(class_weights)
        self.average: Any = copy.deepcopy(self.trained)
        fabric.to_device(self.average)
        trained = sync_batch_norm(self.trained) if fabric.world_size > 1 else self.trained
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
                "depth": None if self.second is None else f"{depth} on {self.second.identity}",
            },
        )

    @property
    def best_path(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def averaged(self) -> Network:
        """What is measured and kept."""
        network: Network = self.average.network if self.second else self.average
        return network

    def train_epoch(self) -> Iterator[Step]:
        self.model.train()
        epoch = self.epoch + 1
        start = self.epoch * self.batches.per_epoch
        masked: list[float | None] = []
        for step in range(start, start + self.batches.per_epoch):
            rate = self.recipe.learning_rate * (1 - step / self.steps) ** 0.9
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            batch = self.batches[step]
            with counted([self.network]) as passes:
                lost = self._step(batch, step)
            passed = (passes.forwards + passes.backwards) / len(batch.images)
            passed += self.second.passes if self.second else 0
            masked.append(lost.masked)
            held_out = None
            if step + 1 == start + self.batches.per_epoch:
                if self.second:
                    self.second.require_motion(masked, first=not self.epoch)
                held_out = self._finish_epoch()
            yield Step(epoch, step + 1, self.steps, lost.loss, rate, passed, lost.depth_loss, lost.masked, held_out)

    def _step(self, batch: Batch, step: int) -> "_Lost":
        batch = batch.to(self.fabric.device)
        images, labels, trades = batch.images, batch.labels, 0.0
        if self.adversary:
            epoch, trades = step / self.batches.per_epoch, self.adversary.trades
            moved = self.adversary.moved(self.network, batch, epoch=epoch, seed=self.recipe.seed, fabric=self.fabric)
            images = torch.cat([images, moved.images]) if trades else moved.images
        images = images.contiguous(memory_format=torch.channels_last)
        video, view = batch, None
        if self.second and not self.second.alone:
            video = self.second.batches[step].to(self.fabric.device)
        with layer_draws(self.recipe.seed, step, self.fabric):
            answers = self.model(images, *frames_of(video)) if self.second else Answers(self.model(images), None)
        loss = torch.zeros((), device=self.fabric.device)
        if answers.logits is not None:
            loss = self._segmentation_loss(answers.logits.float(), labels, trades)
        if self.second and answers.scene is not None:
            view = self.second.view(self.network, answers.scene, video, progress=step / self.steps)
            loss = loss + view.loss.mean()
        if not torch.isfinite(loss):
            which = _not_finite(answers.logits, batch) + (_named(video, view.loss) if view else [])
            raise RobustsegError(
                f"expected a finite loss, got {loss.item()} at step {step} in {', '.join(which)}; "
                "try a smaller learning rate or float32, or leave out what is broken"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self._update_average(step)
        told = [loss, *((view.loss.mean(), view.masked_share.mean()) if view else ())]
        return _Lost(*(float(self._over_processes(value, "mean")) for value in told))

    def _segmentation_loss(self, answers: Tensor, labels: Tensor, trades: float) -> Tensor:
        """This process's share of the mean over the whole batch, as gradients are averaged over processes."""
        logits, *attacked = answers.split(len(labels))
        others = logits.shape[1] - len(self.class_weights)
        class_weights = F.pad(self.class_weights, (0, others), value=1.0)
        pixel_losses = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="sum")
        weight = self.class_weights[labels[labels != IGNORE]].sum()
        for moved_logits in attacked:
            weights_of_pixels = self.class_weights[labels.where(labels != IGNORE, 0)] * (labels != IGNORE)
            pixel_losses = pixel_losses + trades * drift(logits, moved_logits, weights_of_pixels)
        whole_weight = self._over_processes(weight, "sum")
        return pixel_losses / whole_weight.clamp_min(1e-6) * self.fabric.world_size

    def _over_processes(self, value: Tensor, how: str) -> Tensor:
        return torch.as_tensor(self.fabric.all_reduce(value.detach().clone(), reduce_op=how))

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.recipe.ema, (1 + step) / (10 + step))  # a young average forgets faster
        for mean, new in zip(self.average.state_dict().values(), self.trained.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)
            else:
                mean.copy_(new)

    def _finish_epoch(self) -> HeldOut | None:
        self.epoch += 1
        held_out = None
        if self.epoch % self.recipe.check_every == 0 or self.epoch == self.recipe.epochs:
            held_out = self._held_out()
        if self.fabric.is_global_zero:
            if held_out is not None:
                self._keep(held_out)
            self._save()
        self.fabric.barrier()
        return held_out

    def show(self, step: Step, events: Events) -> None:
        """Write what TensorBoard shows of a step."""
        figures = {name: getattr(step, name) for name in ("loss", "learning_rate", "depth_loss", "masked")}
        if step.held_out is not None:
            figures |= {f"held-out {name}": value for name, value in dataclasses.asdict(step.held_out).items()}
        events.curves(figures, step.step)
        if step.held_out is not None and self.second and self.second.task.weight:
            video = self.second.batches[0].to(self.fabric.device)
            scene, view = self.second.look(self.average, video)
            events.pictures(video.images, scene.disparity, view, step.step)

    def _held_out(self) -> HeldOut:
        if self.second and self.second.alone:
            lost = self.second.measure(self.average, self.holdout, self.fabric)
            return HeldOut(math.nan, depth_loss=lost)
        attacks = self.adversary.checks() if self.adversary else ()
        measured = (_measure(self.averaged, self.holdout, self.fabric, attack) for attack in (None, *attacks))
        return HeldOut(*map(metrics.miou, measured))

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
            if self.depth:
                recipe["depth"] = dataclasses.asdict(self.depth)
            weights.save(
                self.averaged,
                self.best_path,
                recipe=recipe,
                data=self.data.spec,
                holdout=self.holdout.spec,
                **notes,
                epoch=self.epoch,
            )

    def _save(self) -> None:
        self.checkpoint.save(
            network=self.trained.state_dict(),
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
        self.trained.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best = state["epoch"], state["best"]
        log.info("resumed at epoch %d", self.epoch)


class _Lost(NamedTuple):
    """What `Step` tells of a loss."""

    loss: float
    depth_loss: float | None = None
    masked: float | None = None


def _not_finite(logits: Tensor | None, batch: Batch) -> list[str]:
    """The names of the images whose logits are not finite."""
    return [] if logits is None else _named(batch, logits[: len(batch.ids)].flatten(1).sum(1))


def _named(batch: Batch, losses: Tensor) -> list[str]:
    return [f"'{name}'" for name, lost in zip(batch.ids, losses, strict=True) if not torch.isfinite(lost)]


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
