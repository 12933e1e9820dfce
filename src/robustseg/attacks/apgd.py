"""Attacks with steps that adapt: APGD, and SEA, the worst of three of them for each image.

APGD is `steps.climb` with a stateful `Move`: it uses momentum and, at checkpoints, halves the step of those images that
no longer improve and returns them to their best iterate.

Sources: Croce and Hein, ICML 2020 (APGD); Croce, Singh, Hein, ECCV 2024 (SEA).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from robustseg.attacks.gradient import random_within
from robustseg.attacks.objectives import objective as named_objective
from robustseg.attacks.steps import Aim, Best, Here, aim, ceiling, climb, direction, require_counts, round_to_8bit
from robustseg.core.budget import Budget
from robustseg.core.random import ImageRng
from robustseg.core.registry import attack
from robustseg.core.types import Images, Labels, Network, Objective
from robustseg.losses.pixelwise import balanced, wrong_pixels


@attack("apgd")
def apgd(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    budget: Budget | str,
    steps: int = 100,
    objective: Objective | str = "cross_entropy",
    judge: Objective | str | None = "wrong_pixels",
    shrink: bool = False,
    restarts: int = 1,
    random_start: bool = True,
    goal: str = "truth",
    targets: Labels | None = None,
    draws: int = 1,
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """Projected gradient ascent with momentum and an adaptive step size; for each image the best iterate.

    `z = project(x + s * direction(gradient))`, `x <- project(x + 0.75 (z - x) + 0.25 (x - x_before))`, s from 2 eps on;
    see `Adaptive` for when s is halved.

    Args:
        network: left unchanged.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        budget: such as 'linf:8/255' or 'l2:2.5'.
        steps: gradient steps of each restart.
        objective: a name of `attacks.objectives` or a function; the attack follows its gradient, and its value controls
            the step size. A restart skips finished images (`steps.ceiling`), so a function may see part of the batch.
            `balanced_masked_cross_entropy:1200,340,…` states the number of pixels of each class.
        judge: selection criterion of the best iterate, a name or a function; None is the objective.
        shrink: start with 2 and 1.5 times the budget, 30 % of the steps each, as SEA does; the result comes from the
            remaining steps, which stay within the budget.
        restarts: runs from different random starts. random_start: uniform in the (first) budget, or at the image.
        goal: which labels the attack uses, see `steps.aim`. targets: labels of a targeted attack, in place of a goal.
        draws: EOT samples of a randomised network at each step; values and gradient are their means.
        clip: keep every iterate in [0, 1].
        round: round to 8-bit values within the budget, see `steps.round_to_8bit`.
        rng: for the random starts and randomised networks; restart r uses stream r of each image.

    Returns:
        Images within the budget.

    Raises:
        SpecError: an argument outside its range.

    Source: Croce and Hein, ICML 2020, algorithm 1 and section 3; the shrinking radius: Croce, Singh, Hein, ECCV 2024.
    Differs: the best iterate has the most misclassified pixels (as in SEA), not the largest objective, which still controls
        the step size.
    """
    require_counts(steps=steps, restarts=restarts, draws=draws)
    named = None if judge is None else named_objective(judge)
    target = aim(network, images, labels, goal=goal, objective=named_objective(objective), judge=named, targets=targets)
    stages = _stages(Budget.parse(budget), steps, shrink)
    streams, count, best = rng.repeat(restarts), len(rng), Best(images.detach().clone())
    for restart in range(restarts):
        own = streams.select(range(restart * count, (restart + 1) * count))
        start = random_within(stages[0].budget, images, own) if random_start else None
        _run(network, images, target, stages, start=start, best=best, draws=draws, clip=clip, rng=own)
    return round_to_8bit(best.images, images) if round else best.images


class Stage(NamedTuple):
    """A stage of a run: its steps stay within its budget."""

    budget: Budget
    steps: int


def _stages(budget: Budget, steps: int, shrink: bool) -> list[Stage]:
    wide = [Stage(replace(budget, eps=factor * budget.eps), 3 * steps // 10) for factor in (2, 1.5)]
    wide = [stage for stage in wide if shrink and stage.steps > 0]
    return [*wide, Stage(budget, steps - sum(stage.steps for stage in wide))]


def _run(
    network: Network,
    images: Images,
    target: Aim,
    stages: Sequence[Stage],
    *,
    start: Images | None,
    best: Best,
    draws: int,
    clip: bool,
    rng: ImageRng,
) -> None:
    """One run on the images that earlier runs did not finish; updates the best iterates of all runs."""
    going = (best.values < ceiling(target.judge)).nonzero().flatten()
    if len(images) and not len(going):  # of no images at all the arguments are still checked
        return
    part, kept = best.select(going), going.tolist()
    images, labels, rng = images[going], target.labels[going], rng.select(kept)
    start = None if start is None else start[going]
    for stage in stages:  # each starts from the best iterate of the one before; only those of the last stage are kept
        last = stage is stages[-1]
        start = climb(
            network,
            images,
            labels,
            objective=target.objectives,
            budget=stage.budget.select(kept),
            steps=stage.steps,
            move=Adaptive(stage.steps),
            start=start,
            judge=target.judge,
            best=part if last else None,
            draws=draws,
            clip=clip,
            rng=rng,
        )
    best.put(going, part)


class Adaptive:
    """The move of APGD for one run of `steps` steps.

    The first step size is 2 eps. At a checkpoint, an image halves it and returns to its best iterate if fewer than 75 % of
    the steps since the last checkpoint raised the objective, or if neither step size nor best value changed since then.

    Source: Croce and Hein, ICML 2020, algorithm 1, conditions 1 and 2.
    """

    best: Best
    gradient: Tensor
    previous: Tensor
    before: Tensor
    rises: Tensor | int = 0

    def __init__(self, steps: int):
        self.checkpoints = checkpoints(steps)
        self.step, self.since = 0, 0

    def __call__(self, here: Here) -> Tensor:
        """One step from here; at a checkpoint, images may continue from their best iterate."""
        images, gradient = here.images, here.gradient
        if self.step == 0:
            self._begin(here)
        self.rises = self.rises + (here.values > self.before)
        self.gradient = _choose(self.best.offer(images, here.values), gradient, self.gradient)
        self.before = here.values
        if self.step in self.checkpoints:
            stuck = self._stuck()
            images, gradient = _choose(stuck, self.best.images, images), _choose(stuck, self.gradient, gradient)
            self.before = torch.where(stuck, self.best.values, self.before)
        aimed = here.within(images + self.size * direction(gradient, here.budget))
        share = 0.75 if self.step else 1.0  # the first step has no momentum
        moved = images + share * (aimed - images) + (1 - share) * (images - self.previous)
        self.previous, self.step = images, self.step + 1
        return moved

    def _begin(self, here: Here) -> None:
        self.size = here.images.new_full((len(here.images), 1, 1, 1), 2 * here.budget.eps)
        self.best, self.gradient, self.previous = Best(here.images), here.gradient, here.images
        self.before = torch.full_like(here.values, torch.inf)
        self.halved = torch.zeros_like(here.values, dtype=torch.bool)
        self.best_before = torch.full_like(here.values, -torch.inf)

    def _stuck(self) -> Tensor:
        few = self.rises < 0.75 * (self.step - self.since)
        still = ~self.halved & (self.best.values == self.best_before)
        self.halved = few | still
        self.size = self.size / (1 + self.halved.to(self.size).view(-1, 1, 1, 1))
        self.best_before, self.since, self.rises = self.best.values, self.step, 0
        return self.halved


def checkpoints(steps: int) -> tuple[int, ...]:
    """The checkpoints of APGD: after 22 %, 41 %, 57 %, … of all steps, ever closer, at least 6 % apart."""
    percent, gap = [22], 22
    while percent[-1] < 100:
        gap = max(gap - 3, 6)
        percent.append(percent[-1] + gap)
    return tuple(-(-p * steps // 100) for p in percent if p < 100)


def _choose(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(which.view(-1, 1, 1, 1), a, b)


@attack("sea")
def sea(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    budget: Budget | str,
    steps: int = 300,
    class_pixels: Sequence[int] | None = None,
    draws: int = 1,
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """The segmentation ensemble attack: three APGD runs, for each image the result with the most misclassified pixels.

    The runs are `apgd(…, shrink=True)` with the objectives `jensen_shannon`, `masked_cross_entropy` and
    `balanced_masked_cross_entropy`, all from the same random start. Run alone with the same seed, none of them leaves a
    lower pixel accuracy on any image. Images whose labelled pixels are all misclassified are skipped in later runs. For
    the worst mIoU over a set see docs/design/worst-miou.md.

    Args:
        network: left unchanged.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        budget: such as 'linf:8/255' or 'l2:2.5'.
        steps: gradient steps of each of the three runs.
        class_pixels: number of pixels of each class in the training set, for the balanced objective
            (`robustseg doctor --all` prints them). None counts the labels of each image, see
            `losses.pixelwise.pixel_balanced_masked_cross_entropy`.
        draws: EOT samples of a randomised network at each step; values and gradient are their means.
        clip: keep every iterate in [0, 1].
        round: round to 8-bit values within the budget, see `steps.round_to_8bit`.
        rng: for the random start and randomised networks.

    Returns:
        Images within the budget.

    Source: Croce, Singh, Hein, ECCV 2024, section 3.
    Differs: without `class_pixels`, class weights come from each image, not from the training set; each run adapts its
        step size to the value of its own loss without weights; all runs share one random start.
    """
    require_counts(steps=steps, draws=draws)
    stages, best = _stages(Budget.parse(budget), steps, True), Best(images.detach().clone())
    own = rng.repeat(1)
    start = random_within(stages[0].budget, images, own)
    for objective in (*map(named_objective, ("jensen_shannon", "masked_cross_entropy")), balanced(class_pixels)):
        target = Aim((objective,), labels, wrong_pixels)
        _run(network, images, target, stages, start=start, best=best, draws=draws, clip=clip, rng=own)
    return round_to_8bit(best.images, images) if round else best.images
