"""The adaptive student: a copy of a network that learns another's answers while its own features move away.

Three networks watch each other: a static teacher T, a static student S, and an adaptive student A, finetuned from S on
images without labels. A answers like T and computes unlike S, so an attack made for T or for S fools A less, and A tells
which of the two was attacked.

Decisions of ours, where the paper is silent: the loss is taken image by image and then averaged; A finetunes with frozen
batch statistics and without dropout, so that features are compared as they are at test (`train_mode` is the ablation);
Adam at a constant rate, so that a run may go on for longer; what is kept is the last A, not the one best on clean data,
which would be the one that has moved least.

At the start A is S, and there the gradient of the feature term is exactly zero (of |x| at 0): the cross-entropy moves A
first, and from the second update on the feature term pulls on. So alpha = 1 would never start, and is refused; so is a
teacher that is the student, whose cross-entropy pulls at nothing either.

Source: Bär, Klingner, Varghese, Hüger, Schlicht, Fingscheidt, CVPR Workshops 2020, eq. 1 to 8.
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
from lightning_fabric import Fabric

from robustseg.core.code import code_of
from robustseg.core.errors import RobustsegError
from robustseg.core.files import append_line, json_line, read_lines, write_whole
from robustseg.core.folders import result_in
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import digest
from robustseg.core.types import Dataset, Network, frozen
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.views import batches
from robustseg.networks import weights
from robustseg.networks.fast import fast
from robustseg.results import metrics
from robustseg.results.record import Counts
from robustseg.training.fabric import fabric_on, require_joined
from robustseg.training.labels import require_labelled
from robustseg.training.matching import (
    Watched,
    feature_distances,
    features_of,
    inverse_feature_matching,
    layers_of,
    soft_cross_entropy,
)
from robustseg.training.resumable import Batches, Checkpoint, begun, identity, layer_draws, processes_of
from robustseg.training.synced import enough_values, sync_batch_norm

log = logging.getLogger(__name__)

HEAD = "train-adaptive.json"
FILES = ("adaptive.safetensors", "last.ckpt", "history.jsonl")


@dataclass(frozen=True)
class AdaptiveRecipe:
    """How to finetune the adaptive student; the loss is the paper's, the optimiser ours (there it is not stated).

    Args:
        layers: whose features move away: names, or groups of names (see `layers_of`).
        alpha: weight of the feature term, 0 (none: the control) to below 1; the cross-entropy has 1 - alpha.
        beta, gamma, p: of the feature term `(beta + mean over layers of ||f_A - f_S||_p / (H W C))^(-gamma)`.
        relative: measure each layer's distance in units of its `||f_S||_p / (H W C)`, so that beta means the same for
            every network; else in the units of its features, as in the paper.
        updates: steps of the optimiser in all. A folder's run goes on to a larger number.
        batch_size: images an update, over all processes.
        crop: (height, width) of what the networks see. scale: range of the random factor on the image's size. Half of
            the images are mirrored and colours change as in supervised training.
        learning_rate: of Adam, constant.
        train_mode: finetune with batch statistics and dropout instead, as an ablation.
        check_every: updates between two checkpoints, each with a measurement on the held-out data.
        seed: of order, augmentation and dropout.
    """

    layers: tuple[str, ...] = ("down2",)
    alpha: float = 0.6
    beta: float = 0.5
    gamma: float = 1.0
    p: float = 1.0
    relative: bool = False
    updates: int = 2000
    batch_size: int = 8
    crop: tuple[int, int] = (180, 240)
    scale: tuple[float, float] = (0.75, 1.5)
    learning_rate: float = 1e-4
    train_mode: bool = False
    check_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise RobustsegError(
                f"expected 0 <= alpha < 1, got {self.alpha}; try 0.6 (with 1 nothing would move the copy off its start)"
            )
        if not (0 < self.beta < math.inf and 0 < self.gamma < math.inf and 1 <= self.p < math.inf):
            raise RobustsegError(
                f"expected beta > 0, gamma > 0 and p >= 1, got {self.beta}, {self.gamma} and {self.p}; "
                "try beta=0.5, gamma=1, p=1"
            )
        if self.updates < 1 or self.batch_size < 1 or self.check_every < 1:
            raise RobustsegError(
                f"expected at least one update, one image a batch and one update between checks, got {self.updates}, "
                f"{self.batch_size} and {self.check_every}; try the defaults"
            )
        if min(self.crop) < 1 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise RobustsegError(
                f"expected a crop of at least 1x1 and 0 < lowest <= highest scale, got {self.crop[0]}x{self.crop[1]} and "
                f"{self.scale[0]} to {self.scale[1]}; try crop=(180, 240) and scale=(0.75, 1.5)"
            )
        if not 0 < self.learning_rate < math.inf:
            raise RobustsegError(f"expected a learning rate > 0, got {self.learning_rate}; try 1e-4")


@dataclass(frozen=True)
class Update:
    """One line of `history.jsonl`; losses and features are means over the batch, before the update.

    Args:
        update: counts from 1. updates: how many there will be.
        loss: `(1 - alpha) * cross_entropy + alpha * feature_term`.
        distance: of each layer, `||f_A - f_S||_p / (H W C)`. size: of each layer, `||f_S||_p / (H W C)`.
        miou, agreement: of A on the held-out data after the update, against labels and with T (share of pixels); only
            where they were measured.
    """

    update: int
    updates: int
    loss: float
    cross_entropy: float
    feature_term: float
    distance: dict[str, float]
    size: dict[str, float]
    miou: float | None = None
    agreement: float | None = None


def train_adaptive(
    teacher: Network,
    student: Network,
    data: Dataset,
    *,
    folder: str | Path,
    recipe: AdaptiveRecipe | None = None,
    holdout: Dataset | None = None,
    fabric: Fabric | None = None,
    on_update: Callable[[Update], None] = lambda update: None,
) -> Path:
    """Finetune a copy of the student towards the teacher's answers and away from the student's features.

    `J = (1 - alpha) CE(softmax T, A) + alpha IFM`, mean over images; labels are not used.

    Writes `FOLDER/train-adaptive.json` (the conditions of the run), `FOLDER/adaptive.safetensors` (the last A, with teacher,
    student and recipe in its notes), `FOLDER/history.jsonl` (one line an update) and `FOLDER/last.ckpt`, from which an
    interrupted run goes on: bit for bit on a CPU. The folder of a run with other images, networks, code or settings is
    refused. The networks given stay as they are.

    Args:
        teacher, student: of one label space; the student's features are named.
        data: images, of any size; their labels may all be void.
        folder: of the results; an unfinished run in it is continued, a finished one too where `updates` grew.
        recipe: the defaults if None.
        holdout: labelled images on which A is measured at each check; chooses nothing.
        fabric: device, precision and processes; launched already. Default: one process on the CPU.
        on_update: called after each update, on the first process.

    Returns:
        The path of the adaptive student.

    Raises:
        LabelSpaceMismatch: teacher, student and held-out data differ. SpecError: a layer is unknown. RobustsegError:
            teacher and student are one network, there are no images or fewer than processes, the held-out data has no
            labelled pixel, the folder cannot be written, another run writes there, its checkpoint is torn, it holds
            something else, or a launcher started processes that `fabric` did not join.
    """
    recipe, folder = recipe or AdaptiveRecipe(), Path(folder)
    fabric = fabric or fabric_on("cpu")
    require_joined(fabric)
    student.label_space.require_same(teacher.label_space, mine=student.spec, theirs=teacher.spec)
    if holdout is not None:
        student.label_space.require_same(holdout.label_space, mine=student.spec, theirs=holdout.spec)
        require_labelled(holdout)
    if digest(teacher) == digest(student):
        raise RobustsegError(
            f"expected a teacher other than the student, got '{teacher.spec}' twice, which nothing would move; "
            "try another teacher"
        )
    about = _conditions(teacher, student, data, holdout, recipe, fabric)
    with begun(folder / HEAD, fabric, about, FILES):
        run = _Run(teacher, student, data, holdout, folder, recipe, fabric, about)
        run.resume()
        for update in run.updates():
            if fabric.is_global_zero:
                on_update(update)
    return run.path


def finished(
    teacher: Network,
    student: Network,
    data: Dataset,
    *,
    folder: Path,
    recipe: AdaptiveRecipe,
    holdout: Dataset | None = None,
    fabric: Fabric,
) -> bool:
    """Whether `train_adaptive` with these arguments has nothing to do in a folder.

    Raises:
        RobustsegError: the folder holds something else, or a run under other conditions.
    """
    path, about = folder / FILES[0], _conditions(teacher, student, data, holdout, recipe, fabric)
    known = result_in(folder / HEAD, about, FILES) is not None and path.is_file()
    return known and bool(weights.notes_of(path).get("updates", 0) >= recipe.updates)


def _conditions(
    teacher: Network,
    student: Network,
    data: Dataset,
    holdout: Dataset | None,
    recipe: AdaptiveRecipe,
    fabric: Fabric,
) -> dict[str, Any]:
    """What a run keeps from its first update to its last."""
    kept = {k: v for k, v in dataclasses.asdict(recipe).items() if k not in ("updates", "check_every")}
    kept["layers"] = layers_of(student, recipe.layers)
    for name, network in (("teacher", teacher), ("student", student)):
        kept |= {name: f"{network.spec} ({digest(network)})", f"code of the {name}": code_of(network)}
    known = {"data": identity(data), "held-out data": holdout and identity(holdout)}
    return {**kept, **known, **processes_of(fabric)}


class _Run:
    """The state of one finetuning."""

    def __init__(
        self,
        teacher: Network,
        student: Network,
        data: Dataset,
        holdout: Dataset | None,
        folder: Path,
        recipe: AdaptiveRecipe,
        fabric: Fabric,
        about: dict[str, Any],
    ):
        self.folder, self.recipe, self.fabric, self.holdout = folder, recipe, fabric, holdout
        self.update = 0
        self.layers: tuple[str, ...] = about["layers"]
        augment = Augmentation(recipe.crop, recipe.scale)
        self.batches = Batches(data, augment, batch_size=recipe.batch_size, seed=recipe.seed, fabric=fabric)
        self.origin = {name: about[name] for name in ("teacher", "student", "data")}
        self.checkpoint = Checkpoint(folder / "last.ckpt", fabric)
        self.teacher = fast(teacher)
        self.student = copy.deepcopy(student).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        for network in (self.teacher, self.student):
            fabric.to_device(network)
        self.adaptive = copy.deepcopy(student).requires_grad_(True).to(memory_format=torch.channels_last)
        self.adaptive.train(recipe.train_mode)
        if recipe.train_mode and fabric.world_size > 1:
            sync_batch_norm(self.adaptive)
        optimizer = torch.optim.Adam(self.adaptive.parameters(), recipe.learning_rate)
        self.model, self.optimizer = fabric.setup(Watched(self.adaptive, self.layers), optimizer)

    @property
    def path(self) -> Path:
        return self.folder / "adaptive.safetensors"

    @property
    def history(self) -> Path:
        return self.folder / "history.jsonl"

    def updates(self) -> Iterator[Update]:
        while self.update < self.recipe.updates:
            done = self._update()
            self.update += 1
            check = self.update % self.recipe.check_every == 0 or self.update == self.recipe.updates
            if check and self.holdout is not None:
                miou, agreement = _measure(self.adaptive, self.teacher, self.holdout, self.fabric.device)
                done = dataclasses.replace(done, miou=miou, agreement=agreement)
            if self.fabric.is_global_zero:
                append_line(self.history, {**dataclasses.asdict(done), "time": time.time()})
                if check:  # after the line: of what a checkpoint holds, the history tells
                    self._keep(done)
            if check:
                self.fabric.barrier()
            yield done

    def _update(self) -> Update:
        images = self.batches[self.update].to(self.fabric.device).images
        # Fabric rounds what A sees to the precision of the run: all three are to see the same.
        images = self.fabric.strategy.precision.convert_input(images.contiguous(memory_format=torch.channels_last))
        with torch.no_grad(), self.fabric.autocast():
            teacher_logits = self.teacher(images).float()
            static = features_of(self.student, images, self.layers)
        with layer_draws(self.recipe.seed, self.update, self.fabric), enough_values(len(images)):
            logits, features = self.model(images)
        classes = len(self.adaptive.label_space)
        cross_entropy = soft_cross_entropy(logits.float(), teacher_logits, classes=classes)
        distance, size = feature_distances(features, static, p=self.recipe.p)
        measured = distance / size.clamp_min(1e-12) if self.recipe.relative else distance
        feature_term = inverse_feature_matching(measured, beta=self.recipe.beta, gamma=self.recipe.gamma)
        losses = (1 - self.recipe.alpha) * cross_entropy + self.recipe.alpha * feature_term
        # gradients are averaged over processes, so each loss is its share of the mean over the whole batch
        loss = losses.sum() / self.batches.size * self.fabric.world_size
        if not torch.isfinite(loss):
            raise RobustsegError(
                f"expected a finite loss, got {loss.item()} at update {self.update + 1}; try a smaller learning rate "
                "or float32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        sums = torch.cat([torch.stack([losses, cross_entropy, feature_term]), distance, size]).detach().sum(1)
        means = (torch.as_tensor(self.fabric.all_reduce(sums, reduce_op="sum")) / self.batches.size).tolist()
        whole, cross, term, *rest = means
        return Update(
            update=self.update + 1,
            updates=self.recipe.updates,
            loss=whole,
            cross_entropy=cross,
            feature_term=term,
            distance=dict(zip(self.layers, rest, strict=False)),
            size=dict(zip(self.layers, rest[len(self.layers) :], strict=True)),
        )

    def _keep(self, update: Update) -> None:
        """Write A and the state."""
        weights.save(
            self.adaptive,
            self.path,
            **self.origin,
            recipe={**dataclasses.asdict(self.recipe), "layers": self.layers},
            updates=self.update,
            holdout=self.holdout.spec if self.holdout is not None else None,
            holdout_miou=update.miou,
            holdout_agreement=update.agreement,
        )
        state = {"adaptive": self.adaptive.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.checkpoint.save(update=self.update, **state)

    def resume(self) -> None:
        """Go on where the folder's checkpoint stands; what the history tells of later updates will come again.

        Raises:
            RobustsegError: the checkpoint is torn, or past the last update.
        """
        state = self.checkpoint.load("update", "adaptive", "optimizer")
        if state is not None:
            if state["update"] > self.recipe.updates:
                raise RobustsegError(
                    f"expected at least the {state['update']} updates that '{self.folder}' holds, got "
                    f"{self.recipe.updates}; try another folder"
                )
            self.adaptive.load_state_dict(state["adaptive"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.update = state["update"]
            log.info("resumed at update %d", self.update)
        if self.fabric.is_global_zero and self.history.is_file():
            lines = [line for line in read_lines(self.history, torn=True) if line["update"] <= self.update]
            write_whole(self.history, "".join(map(json_line, lines)))


class _HeldOut(NamedTuple):
    miou: float
    agreement: float


def _measure(adaptive: Network, teacher: Network, data: Dataset, device: torch.device) -> _HeldOut:
    """mIoU of A, and the share of pixels that it labels like T."""
    counts, same, pixels = Counts.empty(len(data.label_space)), 0, 0
    with frozen(adaptive), torch.inference_mode():
        for batch in batches(data, 8):
            images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
            mine, theirs = adaptive.predict(images), teacher.predict(images)
            counts += metrics.count(batch.labels.numpy(), mine.cpu().numpy(), batch.ids, len(data.label_space))
            same, pixels = same + int(((mine == theirs) & (mine != IGNORE)).sum()), pixels + mine.numel()
    return _HeldOut(metrics.miou(counts), same / max(1, pixels))
