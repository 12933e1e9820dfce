"""PGD made for segmentation: SegPGD and CosPGD weight the pixels of each step, so that lost ones stop pulling.

Both are `gradient.pgd` with a weighted cross-entropy (`losses.pixel_segpgd`, `losses.pixel_cospgd`). Weights act on the
gradient only, and the best iterate is the one with the most wrong pixels, not the one that has the largest loss.

Sources: Gu, Zhao, Tresp, Torr, ECCV 2022 (SegPGD); Agnihotri, Jung, Keuper, ICML 2024 (CosPGD).
"""

from functools import partial

from robustseg.attacks.gradient import pgd
from robustseg.attacks.steps import towards
from robustseg.core.budget import Budget
from robustseg.core.random import ImageRng
from robustseg.core.registry import attack
from robustseg.core.types import Images, Labels, Network, Objective
from robustseg.losses.pixelwise import mean_over_pixels, pixel_cospgd, pixel_segpgd


@attack("segpgd")
def segpgd(
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
    judge: Objective | str | None = "wrong_pixels",
    goal: str = "truth",
    targets: Labels | None = None,
    draws: int = 1,
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """PGD whose wrong pixels pull little at first and as much as the right ones in the end.

    Step t of T climbs `(1 - lambda) * CE` at right and `lambda * CE` at wrong pixels, `lambda = (t - 1) / (2 T)`.

    Args:
        network: left as it was.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        budget: such as 'linf:8/255' or 'l2:2.5'.
        steps, step_size, restarts, random_start, keep, goal, targets: as in `pgd`. Moving towards labels, the pixels
            that are there already are the ones that pull little.
        judge: what the best iterate is best at, see `pgd`.
        draws, clip, round, rng: as in `pgd`.

    Returns:
        Images within the budget.

    Source: Gu, Zhao, Tresp, Torr, ECCV 2022, equation 4; they take steps of 0.01 at 8/255.
    Differs: for each image the iterate with the most wrong pixels, where the paper takes the last (`keep='last'`).
    """
    count = max(1, steps)
    weighted = [
        mean_over_pixels(partial(pixel_segpgd, share=step / (2 * count), towards=towards(goal, targets)))
        for step in range(count)
    ]
    return pgd(
        network,
        images,
        labels,
        budget=budget,
        steps=steps,
        step_size=step_size,
        restarts=restarts,
        random_start=random_start,
        keep=keep,
        judge=judge,
        goal=goal,
        targets=targets,
        objective=weighted,
        draws=draws,
        clip=clip,
        round=round,
        rng=rng,
    )


@attack("cospgd")
def cospgd(
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
    judge: Objective | str | None = "wrong_pixels",
    goal: str = "truth",
    targets: Labels | None = None,
    draws: int = 1,
    clip: bool = True,
    round: bool = False,
    rng: ImageRng,
) -> Images:
    """PGD on `cos(softmax(logits), onehot(label)) * CE`: a pixel pulls by how sure the network still is of its label.

    Moving towards labels it is `1 - cos`. The weight has no gradient of its own.

    Args:
        network: left as it was.
        images: `[b, 3, h, w]` in [0, 1].
        labels: `[b, h, w]`, void 255.
        budget: such as 'linf:8/255' or 'l2:2.5'.
        steps, step_size, restarts, random_start, keep, goal, targets: as in `pgd`.
        judge: what the best iterate is best at, see `pgd`.
        draws, clip, round, rng: as in `pgd`.

    Returns:
        Images within the budget.

    Source: Agnihotri, Jung, Keuper, ICML 2024, section 3; softmax, as in the paper; steps of 0.01 at 8/255.
    Differs: for each image the iterate with the most wrong pixels, where the paper takes the last (`keep='last'`).
    """
    return pgd(
        network,
        images,
        labels,
        budget=budget,
        steps=steps,
        step_size=step_size,
        restarts=restarts,
        random_start=random_start,
        keep=keep,
        judge=judge,
        goal=goal,
        targets=targets,
        objective=mean_over_pixels(partial(pixel_cospgd, towards=towards(goal, targets))),
        draws=draws,
        clip=clip,
        round=round,
        rng=rng,
    )
