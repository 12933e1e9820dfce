"""Learning while watching: the adaptive network goes on being finetuned on the frames of the stream.

The schedule of the paper, taken literally: inference and finetuning alternate. Every few frames one update on the newest
frame, with the loss of `training.redundant`, so the cost of a frame is bounded. Nothing is learnt while an alarm holds.

What an adaptive network learns, an attacker may teach. So its agreement with the teacher on quiet frames is watched: when
its mean over a window falls too far below that of the quiet prefix, A goes back to its last good weights; and so it does
at each alarm, for A may be the culprit, and if it is not, nothing is lost. The bound is against the prefix and does not
move, so that many small steps lead no farther than one large one.

Source: Baer et al., CVPRW 2020, section 3.1 (there the schedule is described, and emulated by one finetuning).
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from robustseg.core.errors import RobustsegError
from robustseg.core.labels import IGNORE
from robustseg.core.types import Images, Network, most_likely
from robustseg.training.matching import (
    Watched,
    feature_distances,
    features_of,
    inverse_feature_matching,
    layers_of,
    soft_cross_entropy,
)


@dataclass(frozen=True)
class Schedule:
    """When and how the adaptive network learns.

    Args:
        every: frames between two updates.
        learning_rate: of Adam.
        alpha, layers: of the loss, see `training.redundant.AdaptiveRecipe`.
        window: quiet frames over which agreement is averaged; weights are called good at the end of one.
        bound: how far the mean agreement may fall below that of the quiet prefix, as a share of pixels.
    """

    every: int = 5
    learning_rate: float = 1e-5
    alpha: float = 0.6
    layers: tuple[str, ...] = ("down2",)
    window: int = 20
    bound: float = 0.05

    def __post_init__(self) -> None:
        if min(self.every, self.window) < 1 or not 0 <= self.alpha < 1 or not 0 < self.bound < 1:
            raise RobustsegError(
                f"expected every and window of at least 1, alpha from 0 to below 1 and bound between 0 and 1, got {self}"
            )


class Good(NamedTuple):
    """What A falls back to: its weights, and the scores of quiet frames that belonged to them."""

    weights: dict[str, Tensor]
    scores: tuple[float, ...]


class Adaptation:
    """The learning state of one adaptive network in one stream.

    Args:
        student: whose features A keeps away from. adaptive: changed in place. schedule: when and how.

    Raises:
        SpecError: the student has no such layers.
    """

    def __init__(self, student: Network, adaptive: Network, schedule: Schedule):
        self.student, self.adaptive, self.schedule = student, adaptive, schedule
        self.layers = layers_of(student, schedule.layers)
        self.prefix: list[float] = []  # agreement on the quiet frames at the start
        self.recent: deque[float] = deque(maxlen=schedule.window)
        self.updates = 0  # since the weights were last good
        self.remember(())

    def remember(self, scores: Sequence[float]) -> None:
        """Call the present weights good."""
        state = {name: value.detach().clone() for name, value in self.adaptive.state_dict().items()}
        self.good = Good(state, tuple(scores))
        self._start()

    def fall_back(self) -> None:
        """Return to the last good weights; what the optimiser gathered since is dropped."""
        self.adaptive.load_state_dict(self.good.weights)
        self._start()

    def _start(self) -> None:
        self.updates = 0
        self.recent.clear()
        self.adaptive.requires_grad_(True)
        self.optimizer = torch.optim.Adam(self.adaptive.parameters(), self.schedule.learning_rate)

    def see(self, agreed: float) -> str:
        """One more quiet frame after the prefix: `sunk` or `held` at the end of a window, else ``."""
        self.recent.append(agreed)
        if len(self.recent) < self.schedule.window:
            return ""
        return "sunk" if _mean(self.recent) < _mean(self.prefix) - self.schedule.bound else "held"

    def update(self, images: Images, teacher_logits: Tensor) -> float:
        """One step on one frame; the loss before it."""
        classes, alpha = len(self.adaptive.label_space), self.schedule.alpha
        targets = teacher_logits.clone()  # what inference gave takes part in no gradient
        with torch.no_grad():
            static = features_of(self.student, images, self.layers)
        with torch.enable_grad():
            logits, features = Watched(self.adaptive, self.layers)(images)
            apart = feature_distances(features, static).distance
            losses = (1 - alpha) * soft_cross_entropy(logits.float(), targets.float(), classes=classes)
            loss = (losses + alpha * inverse_feature_matching(apart)).mean()
            self.optimizer.zero_grad(set_to_none=True)
            if torch.isfinite(loss):
                loss.backward()
                self.optimizer.step()
        self.updates += 1
        return float(loss.detach())


def agreement(teacher_logits: Tensor, adaptive_logits: Tensor) -> float:
    """The share of pixels that two networks label alike."""
    first, second = most_likely(teacher_logits), most_likely(adaptive_logits)
    return float(((first == second) & (first != IGNORE)).float().mean())


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)
