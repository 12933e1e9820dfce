"""Minimum-norm attacks: the smallest change that misclassifies nearly every pixel, not the most damage within a budget.

ALMA-prox is `steps.climb` on an augmented Lagrangian: a pixel that is still classified correctly is a violated constraint
with its own multiplier. Its move is a step along the gradient, followed by a proximal step that reduces the largest change.

Source: Rony, Pesquet, Ben Ayed, CVPR 2023.
"""

import torch
from torch import Tensor

from robustseg.attacks.steps import Here, aim, climb, require_counts, require_step, towards
from robustseg.core.budget import Budget, fraction
from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.registry import attack
from robustseg.core.types import Images, Labels, Network, Objective, PerImage
from robustseg.losses.pixelwise import image_mean, pixel_margin

RHO = 3.0
"""Penalty parameter: how fast multipliers follow their constraints."""

MEMORY = 0.9
"""Decay of the running mean of multipliers."""

METRIC_MEMORY = 0.8
"""Decay of the running mean of squared gradients."""

PACE, FIRST_PACE, LAST_PACE = 0.04, 0.15, 0.0075
"""Step size: until a change is large enough, `PACE` times the current change; then from `FIRST_PACE` down to `LAST_PACE`
times the smallest change found so far."""

SPARE = 0.02
"""Share of pixels attacked beyond the required share, because the attack does not know in advance which ones are hardest."""


@attack("almaprox")
def almaprox(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    budget: Budget | str = "linf:1",
    steps: int = 200,
    share: float = 0.99,
    step_size: float | str = 0.001,
    goal: str = "truth",
    targets: Labels | None = None,
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """ALMA-prox: for each image the smallest change in L-inf that misclassifies a given share of its pixels.

    Climbs `-sum P(gap_i, rho, mu_i)` over pixels i, with `gap` the margin of the label over the mean margin of the clean
    image, and P2 of the paper, `mu y + mu rho y^2 + rho^2 y^3 / 6` for y >= 0 and `mu y / (1 - rho y)` below; the multiplier
    mu follows the slope of P. Each step goes along the gradient in a metric of running squares; where the share is reached, the
    proximal step of the L-inf norm (`shrunk`) follows.

    Args:
        network: left unchanged.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        budget: upper bound of the change; by default none. An image that needs a larger change gets the change with the
            most misclassified pixels; `apgd` and `sea` are better at that.
        steps: gradient steps; each is a forward and a backward pass, and one forward pass is added at the end.
        share: share of the labelled pixels that must be misclassified, above 0 to 1.
        step_size: change of one value per step, until the first change that is large enough is found.
        goal: `truth`, `prediction` or `least_likely`, see `steps.aim`; in a targeted attack, `share` is the share of pixels
            that must reach their target.
        targets: labels of a targeted attack, in place of a goal.
        clip: keep every iterate in [0, 1].
        round: round to 8-bit values towards the original, see `steps.round_to_8bit`; a few pixels may become correct again.
        rng: for randomised networks.

    Returns:
        Images, each with the smallest change found; its size is the score `linf` of a record.

    Raises:
        SpecError: an argument outside its range.

    Source: Rony, Pesquet, Ben Ayed, CVPR 2023, algorithm 1; the penalty: Birgin, Castillo, Martinez, 2005.
    Differs: the weight of the norm is 0 until the share is reached and twice the gradient afterwards; in the paper it is 1
        against rescaled constraints. Steps are relative to the change, so no step size has to be tuned. rho is constant.
        The hardest pixels, except a few, are left out from the first step to the last. Margins are not divided by the
        spread of the logits of their pixel. Like any attack on margins it follows the most likely other class, which
        need not be the nearest: on a linear network of 2 or 3 classes it comes within 2 % of the closed form in 150
        steps, of 4 classes within 7 %.
    """
    if not 0 < share <= 1 or goal == "least_likely_now":
        raise SpecError(
            f"expected 0 < share <= 1 and a goal of fixed labels, got {share} and '{goal}'; try goal='least_likely'"
        )
    require_counts(steps=steps)
    budget, size = Budget.parse(budget), fraction(step_size)
    require_step(size, budget)
    target = aim(network, images, labels, goal=goal, objective=(), targets=targets)
    run = _Run(images.detach().clone(), steps, share, size, towards(goal, targets))
    return climb(
        network,
        images,
        target.labels,
        objective=run.objective,
        budget=budget,
        steps=steps,
        move=run.move,
        judge=smallest(images, share, towards=towards(goal, targets)),
        clip=clip,
        round=round,
        rng=rng,
    )


def smallest(origin: Images, share: float, *, towards: bool = False) -> Objective:
    """The selection criterion of a minimum-norm attack, `[b]`: minus the L-inf size of a change that is large enough.

    A change that misclassifies too few pixels has a lower value than any that is large enough, and orders by their share.

    Args:
        origin: the clean images. share: share of the labelled pixels that must be misclassified.
        towards: for a targeted attack, count the pixels that have the label, not those that have another.
    """

    def judge(network: Network, images: Tensor, labels: Labels) -> PerImage:
        valid = labels != IGNORE
        lost = (((network.predict(images) == labels) == towards) & valid).flatten(1).sum(1)
        labelled = valid.flatten(1).sum(1)
        size = (images - origin).flatten(1).abs().amax(1)
        return torch.where(lost >= share * labelled, -size, lost / labelled.clamp_min(1).to(size) - 3)

    return judge


class _Run:
    """The state of one run: a multiplier for each pixel, the metric, and the size of the smallest change found so far."""

    multipliers: Tensor
    scale: Tensor
    lost: Tensor
    smallest: Tensor
    found_at: Tensor
    squares: Tensor

    def __init__(self, origin: Images, steps: int, share: float, step_size: float, towards: bool):
        self.origin, self.steps, self.share, self.step_size, self.towards = origin, steps, share, step_size, towards
        self.step = 0

    def objective(self, network: Network, images: Tensor, labels: Labels) -> PerImage:
        """Minus the penalties of an image's pixels; multipliers advance by one step."""
        valid = labels != IGNORE
        gap = pixel_margin(network(images), labels) * (1 if self.towards else -1)
        now = gap.detach()
        if self.step == 0:
            self.scale = image_mean(now.abs(), labels).clamp_min(torch.finfo(now.dtype).tiny).view(-1, 1, 1)
            self.multipliers = torch.ones_like(now)
        self.lost = ((now < 0) & valid).flatten(1).sum(1) >= self.share * valid.flatten(1).sum(1)
        slope = penalty_slope(now / self.scale, self.multipliers).nan_to_num(nan=1.0)
        self.multipliers = (MEMORY * self.multipliers + (1 - MEMORY) * slope).clamp(1e-6, 100)
        kept = valid & (now <= _rank(now, valid, min(1.0, self.share + SPARE)))
        return -torch.where(kept, penalty(gap / self.scale, self.multipliers), 0).flatten(1).sum(1)

    def move(self, here: Here) -> Tensor:
        """One step along the gradient, and one towards the original where enough pixels are misclassified."""
        gradient, change = here.budget.masked(here.gradient), here.images - self.origin
        size = change.flatten(1).abs().amax(1)
        if self.step == 0:
            self.smallest, self.found_at = torch.full_like(size, torch.inf), torch.full_like(size, self.steps)
            self.squares = torch.zeros_like(gradient)
        self.found_at = torch.where(self.lost, self.found_at.clamp_max(self.step), self.found_at)
        self.smallest = torch.where(self.lost, torch.minimum(self.smallest, size), self.smallest)
        self.squares = METRIC_MEMORY * self.squares + (1 - METRIC_MEMORY) * gradient.square()
        self.step += 1
        metric = (self.squares / (1 - METRIC_MEMORY**self.step)).sqrt().clamp_min(torch.finfo(size.dtype).tiny)
        length = self._length(size)
        aimed = change + length.view(-1, 1, 1, 1) * gradient / metric
        weight = torch.where(self.lost, 2 * length * metric.flatten(1).sum(1), 0)
        return self.origin + shrunk(aimed, self.origin, metric, weight, (size - 2 * length).clamp_min(0))

    def _length(self, size: PerImage) -> PerImage:
        """The length of one step in each value; it decays from the first change that was large enough to the last step."""
        share = (self.step - 1 - self.found_at) / (self.steps - self.found_at).clamp_min(1)
        before = (PACE * size).clamp_min(self.step_size)
        after = self.smallest * FIRST_PACE * (LAST_PACE / FIRST_PACE) ** share
        return torch.where(self.smallest.isfinite(), after, before)


def _rank(gap: Tensor, valid: Tensor, share: float) -> Tensor:
    """The gap that a share of an image's valid pixels do not exceed, `[b, 1, 1]`."""
    ordered = torch.where(valid, gap, torch.inf).flatten(1).sort(1).values
    last = (share * valid.flatten(1).sum(1)).ceil().long() - 1
    return ordered.gather(1, last.clamp_min(0).unsqueeze(1)).view(-1, 1, 1)


def penalty(gap: Tensor, multipliers: Tensor) -> Tensor:
    """P2 of each constraint `gap < 0`, of the shape of both: rises ever faster above 0, levels off below."""
    over, under = gap.clamp_min(0), gap.clamp_max(0)
    rising = multipliers * over + multipliers * RHO * over**2 + RHO**2 * over**3 / 6
    return rising + multipliers * under / (1 - RHO * under)


def penalty_slope(gap: Tensor, multipliers: Tensor) -> Tensor:
    """The derivative of `penalty` in the gap: what a multiplier becomes."""
    over, under = gap.clamp_min(0), gap.clamp_max(0)
    rising = multipliers + 2 * multipliers * RHO * over + RHO**2 * over**2 / 2
    return torch.where(gap >= 0, rising, multipliers / (1 - RHO * under) ** 2)


def shrunk(change: Tensor, origin: Images, metric: Tensor, weight: PerImage, floor: PerImage) -> Tensor:
    """The proximal step of the L-inf norm: `argmin_d  weight * max|d| + sum(metric * (d - change)^2) / 2`, image by image.

    The solution clips the change at one level, found by bisection: the level at which the clipped part, weighted by the
    metric, equals the weight.

    Args:
        change, metric: `[b, 3, h, w]`. origin: origin + d stays in [0, 1]. weight: `[b]`; 0 clips nothing.
        floor: lower bound of the level, `[b]`.
    """
    reach = torch.minimum(change.abs(), torch.where(change > 0, 1 - origin, origin))
    high = reach.flatten(1).amax(1)
    low = torch.minimum(floor, high)
    for _ in range(24):
        level = (low + high) / 2
        above = reach > level.view(-1, 1, 1, 1)
        cut = torch.where(above, metric * (change.abs() - level.view(-1, 1, 1, 1)), 0).flatten(1).sum(1)
        low, high = torch.where(cut > weight, level, low), torch.where(cut > weight, high, level)
    return torch.minimum(reach, high.view(-1, 1, 1, 1)) * change.sign()
