"""The gradient attacks: PGD, its variants (FGSM, iterative FGSM and their least-likely-class forms), and MI-FGSM.

All are called as `(network, images, labels, *, budget, ..., rng) -> images` and run `steps.climb`. What papers leave open
is an argument here: the labels that the attack uses (`goal`), the step size, the number of steps, clipping to [0, 1], and
rounding to 8-bit values. The settings of single papers are in `presets`.

Sources: Goodfellow, Shlens, Szegedy, ICLR 2015 (FGSM); Kurakin, Goodfellow, Bengio, ICLR 2017 (iterative, least likely
class); Dong et al., CVPR 2018 (momentum); Madry et al., ICLR 2018 (PGD); Arnab, Miksik, Torr, CVPR 2018 (on segmentation).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustseg.attacks.objectives import objective as named_objective
from robustseg.attacks.steps import Best, Here, aim, climb, direction, require_counts, require_step
from robustseg.attacks.variants import Arguments, variant_of
from robustseg.core.budget import Budget, fraction
from robustseg.core.errors import SpecError
from robustseg.core.random import ImageRng
from robustseg.core.registry import attack
from robustseg.core.types import Images, Labels, Network, Objective


@attack("pgd")
def pgd(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    budget: Budget | str,
    steps: int = 20,
    step_size: float | str | None = None,
    restarts: int = 1,
    random_start: bool = True,
    keep: str = "best",
    judge: Objective | str | None = None,
    goal: str = "truth",
    targets: Labels | None = None,
    objective: Objective | Sequence[Objective] | str = "cross_entropy",
    draws: int = 1,
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """Projected gradient ascent from a random start under L-inf or L2; for each image the best iterate of all restarts.

    Args:
        network: left unchanged.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        budget: such as 'linf:8/255' or 'l2:2.5'.
        steps: gradient steps of each restart.
        step_size: in the budget's norm; None is `step_of`.
        restarts: runs from different random starts. random_start: uniform in the budget, or at the image.
        keep: `best` or `last` iterate of a run; runs are merged by their best in either case.
        judge: selection criterion of the best iterate, a name of `attacks.objectives` or a function; None is the objective.
        goal: which labels the attack uses, see `steps.aim`. targets: labels of a targeted attack, in place of a goal.
        objective: a name of `attacks.objectives`, a function, or one function for each step.
        draws: EOT samples of a randomised network at each step; the gradient is their mean (expectation over
            transformation).
        clip: keep every iterate in [0, 1].
        round: round to 8-bit values within the budget, see `steps.round_to_8bit`.
        rng: for the random starts and randomised networks; restart r uses stream r of each image.

    Returns:
        Images within the budget.

    Raises:
        SpecError: an argument outside its range.

    Source: Madry et al., ICLR 2018; EOT: Athalye, Engstrom, Ilyas, Kwok, ICML 2018.
    """
    budget = Budget.parse(budget)
    require_counts(steps=steps, restarts=restarts, draws=draws)
    size = step_of(budget, steps) if step_size is None else fraction(step_size)
    target = aim(
        network,
        images,
        labels,
        goal=goal,
        objective=named_objective(objective) if isinstance(objective, str) else objective,
        judge=None if judge is None else named_objective(judge),
        targets=targets,
    )
    streams, count = rng.repeat(restarts), len(rng)
    best = Best(images) if restarts > 1 or keep == "best" else None
    result = images
    for restart in range(restarts):
        own = streams.select(range(restart * count, (restart + 1) * count))
        result = climb(
            network,
            images,
            target.labels,
            objective=target.objectives,
            budget=budget,
            steps=steps,
            step_size=size,
            start=random_within(budget, images, own) if random_start else None,
            keep=keep,
            judge=target.judge,
            best=best,
            draws=draws,
            clip=clip,
            round=round,
            rng=own,
        )
    return result


@attack("fgsm")
@variant_of(
    pgd,
    only=("budget", "goal", "objective", "clip", "round"),
    steps=1,
    step_size=...,
    random_start=False,
    keep="last",
)
def fgsm(budget: Budget | str) -> Arguments:
    """One step of the whole budget along the gradient: `x + eps * sign(grad L(x, y))`.

    Under an L2 budget the step is eps along the gradient at unit length. Arguments and result are those of `pgd`.

    Source: Goodfellow, Shlens, Szegedy, ICLR 2015.
    """
    return {"step_size": Budget.parse(budget).eps}


@attack("fgsm_ll")
@variant_of(fgsm, goal="least_likely")
def fgsm_ll() -> None:
    """One step towards the least likely class of each pixel: `x - eps * sign(grad L(x, y_ll))`.

    Arguments and result are those of `fgsm`, without `goal`.

    Source: Kurakin, Goodfellow, Bengio, ICLR 2017 (Adversarial machine learning at scale).
    """


@attack("ifgsm")
@variant_of(
    pgd,
    only=("budget", "steps", "step_size", "goal", "objective", "clip", "round"),
    random_start=False,
    keep="last",
)
def ifgsm(
    images: Images, budget: Budget | str, steps: int | None = None, step_size: float | str = "1/255"
) -> Arguments:
    """Iterative FGSM: small signed steps from the image, projected into the budget; the last iterate.

    Args:
        steps: gradient steps; None is the papers' rule, see `steps_of`.
        step_size: of one value under L-inf; root mean square of one step under L2.

    The other arguments and the result are those of `pgd`.

    Source: Kurakin, Goodfellow, Bengio, ICLR 2017 workshop (Adversarial examples in the physical world).
    """
    budget = Budget.parse(budget)
    values = _values(images) if budget.norm == "l2" else 1
    return {
        "steps": steps_of(budget, images) if steps is None else steps,
        "step_size": fraction(step_size) * math.sqrt(values),
    }


@attack("llcm")
@attack("ifgsm_ll")
@variant_of(ifgsm)
def ifgsm_ll(goal: str = "least_likely") -> None:
    """Iterative FGSM towards the least likely class, also known as the least-likely-class method (LLCM).

    Arguments and result are those of `ifgsm`. The target is the least likely class of the clean image, as in Kurakin
    et al.; `goal='least_likely_now'` recomputes it at each step, as the code of Arnab et al. does.

    Source: Kurakin, Goodfellow, Bengio, ICLR 2017 workshop (Adversarial examples in the physical world).
    """


@attack("mifgsm")
def mifgsm(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    budget: Budget | str,
    steps: int = 20,
    step_size: float | str | None = None,
    decay: float = 1.0,
    keep: str = "best",
    judge: Objective | str | None = None,
    goal: str = "truth",
    targets: Labels | None = None,
    objective: Objective | str = "cross_entropy",
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """Iterative FGSM with momentum: `g <- decay * g + grad / L1(grad)`, `x <- project(x + step_size * sign(g))`.

    Args:
        network: left unchanged.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        budget: such as 'linf:8/255' or 'l2:2.5'; under L2 a step goes along g at unit length.
        steps: gradient steps. step_size: in the budget's norm; None is eps / steps, as in the paper.
        decay: of the momentum; 0 is iterative FGSM.
        keep: `best` or `last` iterate. judge: selection criterion of the best iterate, see `pgd`.
        goal: which labels the attack uses, see `steps.aim`. targets: labels of a targeted attack, in place of a goal.
        objective: a name of `attacks.objectives` or a function.
        clip: keep every iterate in [0, 1].
        round: round to 8-bit values within the budget, see `steps.round_to_8bit`.
        rng: for randomised networks.

    Returns:
        Images within the budget.

    Source: Dong et al., CVPR 2018, algorithm 1 and equations 6 to 8.
    Differs: for each image the best iterate; the paper takes the last (`keep='last'`).
    """
    budget = Budget.parse(budget)
    require_counts(steps=steps)
    size = budget.eps / steps if step_size is None else fraction(step_size)
    require_step(size, budget)
    if not 0 <= decay <= 10:
        raise SpecError(f"expected decay from 0 to 10, got {decay}; try decay=1.0")
    named = None if judge is None else named_objective(judge)
    target = aim(network, images, labels, goal=goal, objective=named_objective(objective), judge=named, targets=targets)
    return climb(
        network,
        images,
        target.labels,
        objective=target.objectives,
        budget=budget,
        steps=steps,
        step_size=size,
        move=Momentum(size, decay),
        keep=keep,
        judge=target.judge,
        clip=clip,
        round=round,
        rng=rng,
    )


class Momentum:
    """The move of MI-FGSM: along the sum of all gradients so far, each at unit L1 length, older ones decayed."""

    def __init__(self, step_size: float, decay: float):
        self.step_size, self.decay = step_size, decay
        self.sum: Tensor | float = 0.0

    def __call__(self, here: Here) -> Tensor:
        """One step from here."""
        length = here.gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(here.gradient.dtype).tiny)
        self.sum = self.decay * self.sum + here.gradient / length.view(-1, 1, 1, 1)
        return here.images + self.step_size * direction(self.sum, here.budget)


def steps_of(budget: Budget, images: Images) -> int:
    """The papers' number of steps: `max(1, ceil(min(eps + 4, 1.25 * eps)))`, eps in gray levels of 255.

    Under L2 eps is the root mean square over the values of an image. Source: Kurakin et al. 2017; Arnab et al. 2018.
    """
    eps = budget.eps * 255 / (math.sqrt(max(1, _values(images))) if budget.norm == "l2" else 1)
    return max(1, math.ceil(min(eps + 4, 1.25 * eps) - 1e-6))  # 8/255 * 255 is not quite 8


def step_of(budget: Budget, steps: int) -> float:
    """The default step of PGD: a third of eps, and `2.5 * eps / steps` where few steps must cross the ball.

    Of 0.1, 0.125, 0.25, 0.32, 0.5 and 1 times eps, with 20 steps on an ERFNet, 0.32 gave the largest loss at 8/255 and
    the second largest at 2/255 (after 0.5).
    """
    return budget.eps * max(1 / 3, 2.5 / max(1, steps))


def random_within(budget: Budget, images: Images, rng: ImageRng) -> Images:
    """Images moved to a uniform point of the budget, `[b, 3, h, w]`; not clipped to [0, 1]."""
    shape = images.shape[1:]
    if budget.norm == "linf":
        return images + budget.eps * (2 * rng.uniform(shape, images) - 1)
    ball = rng.normal(shape, images)
    radius = rng.uniform((1, 1, 1), images) ** (1 / max(1, _values(images)))
    length = ball.flatten(1).norm(dim=1).clamp_min(torch.finfo(ball.dtype).tiny).view(-1, 1, 1, 1)
    return images + ball / length * radius * budget.eps


def _values(images: Tensor) -> int:
    return math.prod(images.shape[1:])
