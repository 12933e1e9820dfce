"""What makes a number doubtful, looked at on the first, the middle and the last image, for each network that is measured.

* `random_output`: the same image gave other logits the second time, once a gradient was asked for, or after the run.
* `batch_dependent`: an image gave other logits in a batch with another image than alone.
* `probabilities`: the outputs are probabilities, or squeezed between two bounds like them, instead of logits; their
  cross-entropy gradient vanishes early.
* `few_values`: the outputs take at most 256 values: a decision (one-hot, a vote) instead of logits.
* `not_finite`: the share of all images of the run with NaN or infinite logits; such a pixel has no prediction and counts as
  wrong, and no figure relative to the clean images is given.
* `saturated`: the share of pixels, where above half, whose softmax rounds to exactly 1 in float32; where such a pixel is
  right, its cross-entropy has no gradient.
* `zero_gradients`: the share of image values whose loss gradient, that of `Network.soft()`, is exactly 0 although the output
  depends on them, where above 5 %: an attack that follows gradients is then weaker than it looks. True where no gradient
  flows at all.
* `wrong_gradient`: how far, 0 to 2, the gradient is from finite differences, where above 0.3 (0.9 for a network that
  computes in 16 bits): attacks follow the gradient of something else than what is measured.

Two flags are of the data, over all images that were measured:

* `no_labels`: no pixel is labelled.
* `absent_classes`: how many classes label no pixel, as where the class list is another one or a class is taken for void;
  mIoU is then the mean over the other classes.

`robustseg.evaluation.run` adds `not_clipped` (the spec asks for a variant that leaves [0, 1]). False is "looked at and
fine", None is "not looked at": where the output is random, nothing that needs two outputs, and of a network that takes one
image at a time no batch. The probes cost as much as 25 forward passes of one image, whatever the number of images: 60 % of
a clean pass over 40 images, 1 % of an attack of 20 steps on them. `robustseg.audit` looks closer.
"""

import math
from collections.abc import Sequence

import torch

from robustseg.core.types import Logits
from robustseg.evaluation.probes import Look
from robustseg.results.record import Counts

FEW = 256
"""So many different output values are a decision: more than any vote has, fewer than the logits of a small image."""


def doubts(looks: Sequence[Look]) -> dict[str, bool | float | None]:
    """The flags of a network.

    Args:
        looks: at some images, one at least.

    Returns:
        Flag -> value, see the head of this file.
    """
    answers, zeros = [seen.logits for seen in looks], [seen.zero for seen in looks]
    random = any(repeats_not(seen, seen.random) for seen in looks)
    saturated = sum(map(saturation, answers)) / len(looks)
    zero = max((share for share in zeros if share is not None), default=0.0)
    apart = max((seen.apart for seen in looks if seen.apart > (0.9 if seen.halves else 0.3)), default=False)
    return {
        "random_output": random,
        "batch_dependent": None
        if random or all(math.isnan(seen.batch) for seen in looks)
        else any(map(depends_on_batch, looks)),
        "probabilities": any(map(are_probabilities, answers)),
        "few_values": any(map(decides, answers)),
        "not_finite": not all(bool(logits.isfinite().all()) for logits in answers),
        "saturated": saturated if saturated > 0.5 else False,
        "zero_gradients": True if None in zeros else zero if zero > 0.05 else False,
        "wrong_gradient": None if random else apart,
    }


def label_doubts(counts: Counts) -> dict[str, bool | int]:
    """Flag -> value of what the labels of all measured images lack, see the head of this file."""
    absent = int(((counts.tp + counts.fn).sum(0) == 0).sum())
    return {"no_labels": absent == counts.tp.shape[1], "absent_classes": absent or False}


def repeats_not(seen: Look, change: float) -> bool:
    """Whether a relative change of the logits is more than the rounding of a network makes."""
    return change > (0.05 if seen.halves else 1e-4)


def depends_on_batch(seen: Look) -> bool:
    """Whether another image in the batch changes the logits by more than the rounding of a network makes."""
    return seen.batch > (0.05 if seen.halves else 1e-3)


def are_probabilities(logits: Logits) -> bool:
    """Whether the values are probabilities, or squeezed between two bounds like them.

    In [0, 1]; or not negative, with one sum at all pixels; or crowded at both ends, as behind a sigmoid times a constant:
    over a tenth of the values within 1 % of the smallest, and over a tenth of the pixels within 1 % of the largest.
    """
    low, high, sums, tops = logits.min(), logits.max(), logits.sum(1), logits.amax(1)
    if low >= 0 and (high <= 1 or torch.allclose(sums, sums.mean(), rtol=1e-3)):
        return True
    near = 0.01 * (high - low)
    return bool(((logits - low) < near).double().mean() > 0.1 and ((high - tops) < near).double().mean() > 0.1)


def decides(logits: Logits) -> bool:
    """Whether the output holds few different values, but for a network that says the same at all pixels, as untrained ones may."""
    few = different_values(logits) <= min(FEW, logits.numel() // 4)
    return few and bool((logits != logits[:, :, :1, :1]).any())


def different_values(logits: Logits) -> int:
    """How many different numbers the output holds."""
    return int(logits.unique().numel())


def saturation(logits: Logits) -> float:
    """The share of pixels whose largest softmax is exactly 1 in float32: the logits are more than 16.6 apart."""
    return float((logits.float().softmax(1).amax(1) == 1).double().mean())
