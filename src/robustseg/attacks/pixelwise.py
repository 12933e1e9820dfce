"""PGD for segmentation: SegPGD and CosPGD weight the pixels of each step, so that misclassified pixels count less.

Both are `gradient.pgd` on a weighted cross-entropy (`losses.pixelwise.pixel_segpgd`, `pixel_cospgd`). The weights act on the
gradient only: the best iterate is the one with the most misclassified pixels, not the one with the largest loss.

Sources: Gu, Zhao, Tresp, Torr, ECCV 2022 (SegPGD); Agnihotri, Jung, Keuper, ICML 2024 (CosPGD).
"""

from functools import partial

from robustseg.attacks.gradient import pgd
from robustseg.attacks.steps import towards
from robustseg.attacks.variants import Arguments, variant_of
from robustseg.core.registry import attack
from robustseg.core.types import Labels, Objective
from robustseg.losses.pixelwise import mean_over_pixels, pixel_cospgd, pixel_segpgd


@attack("segpgd")
@variant_of(pgd, objective=...)
def segpgd(steps: int, goal: str, targets: Labels | None, judge: Objective | str | None = "wrong_pixels") -> Arguments:
    """PGD that down-weights misclassified pixels early on and weights all pixels equally at the end.

    Step t of T climbs `(1 - lambda) * CE` at correct and `lambda * CE` at misclassified pixels, `lambda = (t - 1) / (2 T)`.
    A targeted attack down-weights the pixels that have reached their target.

    Arguments and result are those of `pgd`, without `objective`.

    Source: Gu, Zhao, Tresp, Torr, ECCV 2022, equation 4; they take steps of 0.01 at 8/255.
    Differs: for each image the iterate with the most misclassified pixels; the paper takes the last (`keep='last'`).
    """
    count = max(1, steps)
    sense = towards(goal, targets)
    shares = [step / (2 * count) for step in range(count)]
    return {"objective": [mean_over_pixels(partial(pixel_segpgd, share=share, towards=sense)) for share in shares]}


@attack("cospgd")
@variant_of(pgd, objective=...)
def cospgd(goal: str, targets: Labels | None, judge: Objective | str | None = "wrong_pixels") -> Arguments:
    """PGD on `cos(softmax(logits), onehot(label)) * CE`: the more certain a pixel's label still is, the more it counts.

    A targeted attack weights by `1 - cos`. The weight has no gradient of its own.

    Arguments and result are those of `pgd`, without `objective`.

    Source: Agnihotri, Jung, Keuper, ICML 2024, section 3; softmax, as in the paper; steps of 0.01 at 8/255.
    Differs: for each image the iterate with the most misclassified pixels; the paper takes the last (`keep='last'`).
    """
    return {"objective": mean_over_pixels(partial(pixel_cospgd, towards=towards(goal, targets)))}
