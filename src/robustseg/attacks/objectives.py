"""What attacks climb, by name: the losses on a network's answer, and objectives against networks that watch each other.

* `members`: the mean cross-entropy of all members of a network, and `members:teacher,student` that of some. A vote
  assumes one victim; this attacks them together. A plain network is its own only member.
* `evade`: the same for all members, less a penalty for what the monitor would notice; `evade:5` sets its weight, which an
  attacker would try several of.
* `unnoticed` (no gradient, a judge): the share of wrong pixels in the corrected answer, and one less where the monitor
  raises an alarm, so that of two iterates the unnoticed one is the better.
"""

from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from robustseg.attacks.steps import Known
from robustseg.core.budget import fraction
from robustseg.core.errors import SpecError
from robustseg.core.types import Labels, Monitor, Network, Objective, PerImage
from robustseg.losses import pixelwise as losses
from robustseg.losses.pixelwise import image_mean, pixel_cross_entropy, wrong_pixels

WEIGHT = 3.0
"""Of what a monitor would notice, in nats of cross-entropy per unit of d beyond its threshold. Of 0.3, 1, 2, 3, 5 and 10,
this gave the most unnoticed wrong pixels on three CamVid frames (4/255, 12 steps; 27, 27, 45, 60, 55, 46 %)."""


def objective(name: str | Objective) -> Objective:
    """The objective of this name, of `losses.pixelwise.OBJECTIVES` or of this file; a callable is returned as it is.

    Raises:
        SpecError: the name is unknown.
    """
    own: dict[str, Objective] = {"members": members, "evade": evade, "unnoticed": unnoticed}
    if callable(name):
        return name
    if name.startswith("members:"):
        return partial(members, names=tuple(part.strip() for part in name.partition(":")[2].split(",")))
    if name.startswith("evade:"):
        return partial(evade, weight=fraction(name.partition(":")[2]))
    if name not in own and name not in losses.OBJECTIVES and ":" not in name:
        raise SpecError(f"expected an objective, got '{name}'; try {', '.join((*losses.OBJECTIVES, *own))}")
    return own.get(name) or losses.objective(name)


def members(network: Network, images: Tensor, labels: Labels, *, names: tuple[str, ...] = ()) -> PerImage:
    """Objective: the mean cross-entropy over members and labelled pixels of each image, `[b]`.

    Args:
        network: with named members, or a plain one.
        images: `[b, 3, h, w]`. labels: `[b, h, w]`, void 255.
        names: of the members to attack; none is all.

    Raises:
        SpecError: the network has no member of this name.
    """
    return _joint(_chosen(network, network.members(images), names), labels)


def evade(network: Network, images: Tensor, labels: Labels, *, weight: float = WEIGHT) -> PerImage:
    """Objective: `members` less `weight` times what its monitor would notice (`network.beyond`), `[b]`.

    Raises:
        SpecError: the network has no monitor.
    """
    monitor = _answering(network)
    if not isinstance(monitor, _JointMonitor):
        raise _no_monitor(network)
    answers = network.members(images)
    return _joint(answers, labels) - weight * monitor.beyond(answers)


def unnoticed(network: Network, images: Tensor, labels: Labels) -> PerImage:
    """Objective: the share of labelled pixels that the corrected answer has wrong, less 1 at an alarm, `[b]`.

    -1 to 1. No gradient.

    Raises:
        SpecError: the network has no monitor.
    """
    monitor = _answering(network)
    if not isinstance(monitor, Monitor):
        raise _no_monitor(network)
    found = monitor.watch(images)
    wrong = wrong_pixels(_Answered(network, found.labels), images, labels)
    return wrong - found.alarm.to(wrong)


class _Answered(Network):
    """A network whose labels are known already."""

    def __init__(self, network: Network, labels: Tensor):
        super().__init__(network.label_space, network.spec)
        self.labels = labels

    def predict(self, images: Tensor) -> Tensor:
        return self.labels


def _joint(answers: tuple[Tensor, ...], labels: Labels) -> PerImage:
    return torch.stack([image_mean(pixel_cross_entropy(logits, labels), labels) for logits in answers]).mean(0)


def _chosen(network: Network, answers: tuple[Tensor, ...], names: tuple[str, ...]) -> tuple[Tensor, ...]:
    known = getattr(answers, "_fields", ())
    for name in names:
        if name not in known:
            raise SpecError(
                f"expected members of {network.spec}, got '{name}'; try {', '.join(known) or 'a triplet(…), or members'}"
            )
    return tuple(getattr(answers, name) for name in names) or answers


@runtime_checkable
class _JointMonitor(Monitor, Protocol):
    """A monitor that judges the answers of several members, and how far they are beyond its thresholds has a gradient."""

    def beyond(self, members: tuple[Tensor, ...]) -> PerImage: ...


def _answering(network: Network) -> Network:
    """The network itself, also where an attack has put `Known` around it."""
    while isinstance(network, Known):
        network = network.network
    return network


def _no_monitor(network: Network) -> SpecError:
    return SpecError(f"expected a network with a monitor, got {network.spec}; try triplet(…) as the source")
