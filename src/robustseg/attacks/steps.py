"""The one loop of the gradient attacks: climb an objective within a budget, image by image.

Every gradient attack of this package is `climb` with another objective or another `Move`. It guarantees for all of them:
parameters, mode and inputs stay unchanged, and no gradient remains anywhere; every iterate lies within the budget (and
[0, 1] if clipped); the result of an image does not depend on its batch; NaN never spreads; void pixels have no effect.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustseg.core.budget import Budget
from robustseg.core.errors import RobustsegError, ShapeError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.levels import to_8bit
from robustseg.core.random import ImageRng
from robustseg.core.types import Images, Labels, Network, Objective, frozen, gradient_in, require_pair
from robustseg.losses.pixelwise import wrong_pixels

GOALS = ("truth", "prediction", "least_likely", "least_likely_now")
"""Which labels an attack uses: untargeted, away from the first two; targeted, towards the last two."""


class Aim(NamedTuple):
    """The objectives of an attack, the labels they get, and the selection criterion of its iterates (None: the objective)."""

    objectives: Sequence[Objective]
    labels: Labels
    judge: Objective | None


def aim(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    goal: str,
    objective: Objective | Sequence[Objective],
    judge: Objective | None = None,
    targets: Labels | None = None,
) -> Aim:
    """The objectives and labels that an attack with this goal maximises.

    Args:
        network: asked once for its clean logits by `prediction` and `least_likely`.
        images: clean, `[b, 3, h, w]`.
        labels: ground truth `[b, h, w]`; void pixels stay void whatever the goal.
        goal: `truth` (away from the ground truth), `prediction` (away from the network's own clean prediction),
            `least_likely` (towards the least likely class of the clean image, fixed), `least_likely_now` (the same,
            recomputed at each step).
        objective: large where the network disagrees with the labels; an untargeted attack maximises it, a targeted one
            minimises it. A sequence gives one objective per step; the last one is reused.
        judge: selection criterion of the iterates, in the same sense; None is the (last) objective. Ignored for
            `least_likely_now`, because labels that change with the network cannot compare iterates.
        targets: labels `[b, h, w]` of a targeted attack, in place of any goal.

    Raises:
        SpecError: the goal is unknown.
    """
    objectives = objective if isinstance(objective, Sequence) else (objective,)
    if targets is not None:
        return _turned(Aim(objectives, torch.where(labels == IGNORE, IGNORE, targets), judge), _negative)
    if goal == "least_likely_now":
        return _turned(Aim(objectives, labels, None), _towards_least_likely_now)
    if goal not in GOALS:
        raise SpecError(f"expected a goal, got '{goal}'; try {', '.join(GOALS)}")
    if goal == "truth" or images.numel() == 0:
        return Aim(objectives, labels, judge)
    with frozen(network), torch.no_grad():
        if goal == "prediction":
            return Aim(objectives, torch.where(labels == IGNORE, IGNORE, network.predict(images)), judge)
        return _turned(Aim(objectives, _least_likely(network(images), labels), judge), _negative)


def towards(goal: str, targets: Labels | None) -> bool:
    """Whether an attack with this goal is targeted: moves towards labels, not away from them."""
    return targets is not None or goal.startswith("least_likely")


def _turned(aim: Aim, sense: Callable[[Objective], Objective]) -> Aim:
    return Aim([sense(o) for o in aim.objectives], aim.labels, aim.judge and sense(aim.judge))


def _negative(objective: Objective) -> Objective:
    return lambda network, images, labels: -objective(network, images, labels)


def _least_likely(logits: Tensor, labels: Labels) -> Labels:
    return torch.where(labels == IGNORE, IGNORE, logits.argmin(1))


def _towards_least_likely_now(objective: Objective) -> Objective:
    def towards_now(network: Network, images: Tensor, labels: Tensor) -> Tensor:
        known = Known(network, images)
        return -objective(known, images, _least_likely(known(images).detach(), labels))

    return towards_now


class Known(Network):
    """A network that caches its logits of these images, so that a second call costs no second pass."""

    def __init__(self, network: Network, images: Tensor):
        super().__init__(network.label_space, network.spec)
        self.network, self.images = network, images
        self.logits: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the network, cached if they are those of these images."""
        if images is not self.images:
            return self.network(images)
        if self.logits is None:
            self.logits = self.network(images)
        return self.logits

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The network's own."""
        return self.network.features(images)

    def members(self, images: Images) -> tuple[Tensor, ...]:
        """The network's own."""
        return self.network.members(images)

    def __getattr__(self, name: str) -> Any:
        # Other attributes that an objective uses, such as the score of a monitor, are those of the network.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)


class Here(NamedTuple):
    """The state of each image of a run, from which a `Move` computes the next step."""

    images: Tensor
    values: Tensor
    gradient: Tensor
    budget: Budget
    within: Callable[[Tensor], Tensor]


Move = Callable[[Here], Tensor]
"""The next images; the loop projects them. A stateful move belongs to one run."""


def straight(step_size: float) -> Move:
    """`x + step_size * direction(gradient)`: the step of FGSM and PGD."""
    return lambda here: here.images + step_size * direction(here.gradient, here.budget)


def climb(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    objective: Objective | Sequence[Objective],
    budget: Budget,
    steps: int,
    step_size: float = 0.0,
    move: Move | None = None,
    start: Images | None = None,
    keep: str = "best",
    judge: Objective | None = None,
    best: "Best | None" = None,
    draws: int = 1,
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """Move each image uphill, `x <- project(move(x, gradient))`, by default `x + step_size * direction(gradient)`.

    The direction is the sign of the gradient under L-inf, the gradient at unit length under L2. Gradients are taken on
    `network.soft()`; the best iterate is judged on the network itself.

    Args:
        network: frozen during the attack.
        images: `[b, 3, h, w]` in [0, 1].
        labels: the labels that the objective gets, `[b, h, w]`, void 255.
        objective: `(network, images, labels) -> [b]`, to be maximised. A sequence gives one objective per step; the last
            one is reused.
        budget: around `images`.
        steps: gradient steps. step_size: length of one in the budget's norm, images in [0, 1].
        move: how to step, in place of `straight(step_size)`.
        start: initial images, projected into the budget; None is `images`.
        keep: `best` returns for each image the iterate with the largest value of the judge, `last` the last one (and
            saves the forward pass that would evaluate it).
        judge: selection criterion of the best iterate; None is the (last) objective.
        best: best iterates of earlier runs on the same images; this run updates them, and the best of all is returned.
            The run then ends once every image is finished (`ceiling`).
        draws: EOT samples of a randomised network at each step; values and gradients are their means.
        clip: keep every iterate in [0, 1].
        round: see `round_to_8bit`.
        rng: for randomised networks.

    Returns:
        Images of the same shape, dtype and device; at eps 0 equal to the input bit for bit.

    Raises:
        RobustsegError: the objective has no gradient. ShapeError: labels or streams that do not fit the images.
        SpecError: an argument outside its range.
    """
    require_pair(images, labels)
    if keep not in ("best", "last"):
        raise SpecError(f"expected keep='best' or 'last', got '{keep}'; try keep='best'")
    require_counts(steps=steps, draws=draws)
    if move is None:
        require_step(step_size, budget)
    if len(rng) != len(images):
        raise ShapeError(f"expected one stream an image, got {len(rng)} streams for {len(images)} images")
    if budget.eps == 0 or images.numel() == 0:
        return images.clone()
    objectives = objective if isinstance(objective, Sequence) else (objective,)
    judge, move = judge or objectives[-1], move or straight(step_size)
    guide = network.soft()
    stream = rng.fork("network")
    with frozen(network, guide), torch.inference_mode(False), torch.enable_grad():
        origin, labels = images.detach().clone(), labels.clone()

        def within(moved: Tensor) -> Tensor:
            return _within(moved, origin, budget, clip)

        current = within(origin if start is None else start.detach().clone())
        single = best is None
        best, most = best or Best(current), math.inf if single else ceiling(judge)
        for step in range(steps):
            if best.finished(most):
                break
            pulling = objectives[min(step, len(objectives) - 1)]
            judging = judge if keep == "best" and guide is network else None
            looks = [_look(guide.draw(stream).eval(), current, labels, pulling, judging) for _ in range(draws)]
            values, gradient, judged = (torch.stack(part).mean(0) for part in zip(*looks, strict=True))
            if keep == "best":
                best.offer(current, judged if guide is network else _judge(judge, network, current, labels), most)
            current = within(move(Here(current, values, gradient, budget, within)))
        if (keep == "best" or not single) and not best.finished(most):
            ends = [_judge(judge, network.draw(stream).eval(), current, labels) for _ in range(draws)]
            best.offer(current, torch.stack(ends).mean(0), most)
        if keep == "best" or not single:
            current = best.images
        return round_to_8bit(current, origin) if round else current


class Best:
    """For each image the iterate with the largest value offered so far, of equals the later; NaN is never better."""

    def __init__(self, images: Tensor):
        self.images = images
        self.values = images.new_full((len(images),), -torch.inf)

    def offer(self, images: Tensor, values: Tensor, most: float = math.inf) -> Tensor:
        """Replace those images whose value is not smaller; returns which, bool `[b]`.

        Of equals the later one has made more progress, for example where no pixel has reached its target yet. An image
        with a value of `most` is finished, and the first of equals stays, so that the result does not depend on how
        many steps the other images of the batch take.
        """
        better = (values >= self.values) & (self.values < most)
        self.values = torch.where(better, values, self.values)
        self.images = torch.where(better.view(-1, 1, 1, 1), images, self.images)
        return better

    def finished(self, most: float) -> bool:
        """Whether no image can get any better."""
        return most < math.inf and bool((self.values >= most).all())

    def select(self, indices: Tensor) -> "Best":
        """The best iterates of some of the images."""
        part = Best(self.images[indices])
        part.values = self.values[indices]
        return part

    def put(self, indices: Tensor, part: "Best") -> None:
        """Write back the best iterates of a selection."""
        self.images, self.values = self.images.clone(), self.values.clone()
        self.images[indices], self.values[indices] = part.images, part.values


def ceiling(judge: Objective | None) -> float:
    """The largest value of a selection criterion: every labelled pixel misclassified. Such an image is finished."""
    return 1.0 if judge is wrong_pixels else math.inf


def round_to_8bit(images: Images, origin: Images) -> Images:
    """Move every changed value towards the original to the next n/255, so that no budget is left.

    A value with no n/255 between it and its original returns to the original. Where the original is an 8-bit image, so
    is the result, and at eps below 1/255 it is the original.
    """
    rounded = to_8bit(images, towards=origin).to(images) / 255
    # Where the original is no whole level, the next level may lie on its other side.
    return torch.where((rounded - origin) * (images - origin) > 0, rounded, origin)


def _within(images: Tensor, origin: Tensor, budget: Budget, clip: bool) -> Tensor:
    # Clipping after projecting stays in the ball: the origin is in [0, 1], so each value moves towards it.
    near = budget.project(images, origin)
    return near.clamp(0, 1) if clip else near


def _look(
    network: Network, images: Tensor, labels: Tensor, pulling: Objective, judge: Objective | None
) -> list[Tensor]:
    """Values and gradient of the objective, and the values of the judge on the same pass (without one, the objective's)."""
    leaf = images.detach().requires_grad_()
    known = Known(network, leaf)
    values = pulling(known, leaf, labels)
    judged = values if judge is None or judge is pulling else _judge(judge, known, leaf, labels)
    del known  # frees the logits as soon as the loss no longer needs them
    gradient = _gradient(values, leaf)
    return [values.detach(), gradient, judged.detach()]


def _gradient(values: Tensor, images: Tensor) -> Tensor:
    gradient = gradient_in(values, images)
    if gradient is None:
        raise RobustsegError(
            "expected an objective with a gradient in the images, got one without; "
            "try a differentiable network (Network.soft) or a gradient-free attack"
        )
    return torch.nan_to_num(gradient, nan=0.0)


def direction(gradient: Tensor, budget: Budget) -> Tensor:
    """The steepest way up of length 1 in the budget's norm and region, for each image; 0 where the gradient is 0."""
    gradient = budget.masked(gradient)
    if budget.norm == "linf":
        return gradient.sign()
    # Two divisions, so that squares of tiny gradients do not vanish.
    tiny = torch.finfo(gradient.dtype).tiny
    scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)
    return scaled / scaled.flatten(1).norm(dim=1).clamp_min(tiny).view(-1, 1, 1, 1)


@torch.no_grad()
def _judge(objective: Objective, network: Network, images: Tensor, labels: Tensor) -> Tensor:
    return objective(network, images, labels)


def require_counts(**counts: int) -> None:
    """Raise unless each of these arguments of an attack is a whole number of at least 1.

    An attack of no step leaves the images as they are, which looks like a network that nothing breaks.

    Raises:
        SpecError: one is not.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise SpecError(f"expected {name} >= 1, got {count}; try {name}=1 or more")


def require_step(step_size: float, budget: Budget) -> None:
    """Raise unless a step of this size moves an image, where the budget lets it move.

    Raises:
        SpecError: it does not.
    """
    if not 0 <= step_size < math.inf or (step_size == 0 and budget.eps > 0):
        raise SpecError(f"expected a step_size above 0, got {step_size}; try step_size='1/255'")
