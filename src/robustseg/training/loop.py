"""The training loop on Lightning Fabric: it trains any `Task`, and resumes exactly in any number of processes.

A step depends on (seed, step) alone (see `robustseg.training.resumable`), so an interrupted run resumes bit for bit on a
CPU. Several processes see the batches of one and share batch statistics and the mean of the loss, so they train like one
but for rounding and for dropout, whose masks each process draws for its own images.
"""

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line, read_lines, write_whole
from robustseg.networks import weights
from robustseg.networks.passes import counted
from robustseg.training.events import Events
from robustseg.training.resumable import Checkpoint
from robustseg.training.synced import enough_values, sync_batch_norm
from robustseg.training.task import HeldOut, Loss, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What the loop reports of each step.

    Args:
        epoch, step, steps: epochs and steps count from 1; `steps` is the number in the whole training.
        loss, learning_rate: of this step.
        passes: forward and backward passes an image, including those of an attack and of video.
        figures: further figures of the task, by name.
        held_out: the measurement on the held-out data, where there was one after this step.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    passes: float
    figures: Mapping[str, float] = field(default_factory=dict)
    held_out: HeldOut | None = None


class Training:
    """The state of one training.

    Args:
        task: what is learned, from what. folder: of the results; an unfinished run in it is resumed.

    Raises:
        RobustsegError: the folder's checkpoint is torn.
    """

    def __init__(self, task: Task, folder: Path):
        self.task, self.folder = task, folder
        self.network, self.recipe, self.fabric = task.setup.network, task.setup.recipe, task.setup.fabric
        self.epoch, self.best = 0, -math.inf
        self.steps = task.batches.per_epoch * self.recipe.epochs
        self.average = self.fabric.to_device(copy.deepcopy(task.trained))
        trained = sync_batch_norm(task.trained) if self.fabric.world_size > 1 else task.trained
        rate, decay = self.recipe.learning_rate, self.recipe.weight_decay
        optimizer = torch.optim.AdamW(trained.parameters(), rate, weight_decay=decay)
        self.model, self.optimizer = self.fabric.setup(trained, optimizer)
        self.checkpoint = Checkpoint(folder / "last.ckpt", self.fabric)
        self._resume()

    def run(self, on_step: Callable[[Step], None], *, tensorboard: bool) -> Path:
        """Train to the last epoch; return the path of the best weights (see `train`).

        Raises:
            RobustsegError: no measurement on the held-out data was finite, or as for `step`.
        """
        done = self.epoch * self.task.batches.per_epoch
        events = Events(self.folder, done=done) if tensorboard and self.fabric.is_global_zero else None
        while self.epoch < self.recipe.epochs:
            for step in self._train_epoch():
                if events:
                    self._show(step, events)
                if self.fabric.is_global_zero:
                    on_step(step)
        if self.best == -math.inf:
            raise RobustsegError(
                f"expected a finite measurement on '{self.task.setup.holdout.spec}', got none in {self.epoch} epochs, so "
                "no weights are kept; try a smaller learning rate, or other held-out data"
            )
        return self.best_path

    @property
    def best_path(self) -> Path:
        return self.folder / "best.safetensors"

    def _train_epoch(self) -> Iterator[Step]:
        per_epoch = self.task.batches.per_epoch
        figures: list[Mapping[str, float]] = []
        for step in range(self.epoch * per_epoch, (self.epoch + 1) * per_epoch):
            done = self.step(step)
            figures.append(done.figures)
            if len(figures) == per_epoch:
                self._require_progress(figures)
                done = dataclasses.replace(done, held_out=self._finish_epoch())
            yield done

    def _require_progress(self, figures: Sequence[Mapping[str, float]]) -> None:
        """Raise in the first epoch, and log later, what is wrong with it."""
        if problem := self.task.problem(figures):
            if not self.epoch:
                raise RobustsegError(problem)
            log.warning("%s, or a smaller learning rate", problem)

    def step(self, step: int) -> Step:
        """One step of the optimiser.

        Args:
            step: counts from 0; it decides batch, random draws and learning rate.

        Raises:
            RobustsegError: the loss is not finite.
        """
        rate = self.recipe.learning_rate * (1 - step / self.steps) ** 0.9
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        batch = self.task.batches[step].to(self.fabric.device)
        with counted([self.network]) as passes, enough_values(len(batch.images)):
            lost = self.task.loss(self.model, batch, step)
            self._require_finite(lost, step)
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(lost.loss)
        self.optimizer.step()
        self._update_average(step)
        passed = (passes.forwards + passes.backwards) / len(batch.images) + self.task.uncounted_passes
        loss, *others = (float(self._mean(value)) for value in (lost.loss, *lost.figures.values()))
        figures = dict(zip(lost.figures, others, strict=True))
        return Step(step // self.task.batches.per_epoch + 1, step + 1, self.steps, loss, rate, passed, figures)

    def _require_finite(self, lost: Loss, step: int) -> None:
        if torch.isfinite(lost.loss):
            return
        pairs = [pair for ids, values in lost.outputs for pair in zip(ids, values, strict=True)]
        broken = [f"'{name}'" for name, value in pairs if not torch.isfinite(value).all()]
        raise RobustsegError(
            f"expected a finite loss, got {lost.loss.item()} at step {step} in {', '.join(broken)}; "
            "try a smaller learning rate or float32, or leave out what is broken"
        )

    def _mean(self, value: Tensor) -> Tensor:
        """Over processes."""
        return torch.as_tensor(self.fabric.all_reduce(value.detach().clone(), reduce_op="mean"))

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.recipe.ema, (1 + step) / (10 + step))  # a young average forgets faster
        for mean, new in zip(self.average.state_dict().values(), self.task.trained.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)
            else:
                mean.copy_(new)

    def _finish_epoch(self) -> HeldOut | None:
        self.epoch += 1
        held_out = None
        if self.epoch % self.recipe.check_every == 0 or self.epoch == self.recipe.epochs:
            held_out = self._measure()
        before = self.best
        if held_out is not None and held_out.rank > before:
            self.best = held_out.rank
        if self.fabric.is_global_zero:
            if held_out is not None:
                self._keep(held_out, best=self.best > before)
            self._save()
        self.fabric.barrier()
        return held_out

    def _measure(self) -> HeldOut:
        """What the task measures of the averaged weights; weights that are no numbers rank nowhere."""
        held_out = self.task.measure(self.average)
        finite = all(tensor.isfinite().all() for tensor in self.average.state_dict().values())
        if finite and math.isfinite(held_out.rank):
            return held_out
        warning = f"{held_out.warning}, not finite, so these weights are not kept".removeprefix(", ")
        return dataclasses.replace(held_out, rank=math.nan, warning=warning)

    def _show(self, step: Step, events: Events) -> None:
        """Write what TensorBoard shows of a step."""
        curves = {"loss": step.loss, "learning_rate": step.learning_rate, **step.figures}
        if step.held_out is not None:
            curves |= {f"held-out {name}": value for name, value in step.held_out.figures.items()}
            events.pictures(self.task.pictures(self.average), step.step)
        events.curves(curves, step.step)

    def _keep(self, held_out: HeldOut, *, best: bool) -> None:
        path = self.folder / "history.jsonl"
        # Lines that an interrupted run wrote after its last checkpoint are written again.
        lines = [line for line in read_lines(path, torn=True) if line["epoch"] < self.epoch] if path.is_file() else []
        lines.append({"epoch": self.epoch, **held_out.figures, "time": time.time()})
        write_whole(path, "".join(map(json_line, lines)))
        if best:
            notes: dict[str, Any] = {
                **self.task.notes,
                "data": self.task.setup.data.spec,
                "holdout": self.task.setup.holdout.spec,
                **{f"holdout_{name}": value for name, value in held_out.figures.items()},
            }
            weights.save(self.task.network_in(self.average), self.best_path, **notes, epoch=self.epoch)

    def _save(self) -> None:
        self.checkpoint.save(
            network=self.task.trained.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            epoch=self.epoch,
            best=self.best,
        )

    def _resume(self) -> None:
        state = self.checkpoint.load("network", "average", "optimizer", "epoch", "best")
        if state is None:
            return
        self.task.trained.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best = state["epoch"], state["best"]
        log.info("resumed at epoch %d", self.epoch)
