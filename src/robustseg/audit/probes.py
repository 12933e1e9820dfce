"""A close look at a network, without an attack: is its output made so that gradients mislead?

On each image: what `robustseg.evaluation.probes` sees in every run, two more outputs, values and margins, and in float64 what
tiny changes really do. The gradient is the one that attacks follow, that of `Network.soft()` and of one draw of a network
that draws; so are the outputs that it is held against.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from robustseg.audit.verdicts import Verdict, doubtful, fine, unchecked
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Images, Labels, Network, frozen, most_likely, unchanged
from robustseg.evaluation import probes
from robustseg.evaluation.flags import (
    FEW,
    are_probabilities,
    depends_on_batch,
    different_values,
    repeats_not,
    saturation,
)
from robustseg.evaluation.probes import cross_entropy, gradient_of, relative_change, signs

TINY = 1e-5
"""The size of the changes that probe: far below the 1/255 of an image, far above the rounding of float64 and float32."""

DIRECTIONS = 8


CHECKS = (
    "random_output",
    "batch_dependent",
    "output_values",
    "logits_scale",
    "zero_gradients",
    "flat_output",
    "gradient",
)
"""What `judge` gives a verdict on."""


class CloserLook(NamedTuple):
    """What was seen on one image.

    Args:
        first: what every run sees.
        random: largest relative change of the output between four passes. blurred: it is more than rounding.
        finite, probabilities: of the output. values: how many different numbers it holds. saturated: see `flags.saturation`.
        margin: median over the pixels of the difference of the two largest logits.
        flat: share of the pixels whose logits stay the same to the last bit when every value moves by `TINY`, NaN where the
            network knows no float64.
        apart: how far the gradient is from finite differences, 0 to 2, NaN where both are 0.
    """

    first: probes.Look
    random: float
    finite: bool
    probabilities: bool
    values: int
    saturated: float
    margin: float
    flat: float
    apart: float

    @property
    def blurred(self) -> bool:
        """Whether the output changes by more than rounding."""
        return repeats_not(self.first, self.random)


def look(network: Network, batch: Batch, *, number: int = 0) -> CloserLook:
    """Look at a network on one image (a batch of one on its device): about 30 passes, most of them in float64.

    Args:
        number: see `evaluation.probes.look`.
    """
    guide = network.soft().draw(ImageRng(0, batch.ids))
    with unchanged(network, guide), frozen(network, guide):
        seen = probes.look(network, batch, number=number)
        images = probes.inner(batch, number)
        again = (relative_change(seen.logits, probes.answer(network, images)) for _ in range(2))
        random = max(seen.random, *again)  # few draws may agree by chance
        with torch.no_grad():
            logits = guide(images)
        top = logits.topk(min(2, logits.shape[1]), dim=1).values
        target = batch.labels.where(batch.labels != IGNORE, most_likely(logits))
        flat, apart = _small_changes(guide, batch, number, target)
        return CloserLook(
            seen,
            random,
            bool(torch.isfinite(logits).all() and torch.isfinite(seen.logits).all()),
            are_probabilities(logits),
            different_values(logits),
            saturation(logits),
            float((top[:, 0] - top[:, -1]).median()),
            flat,
            seen.apart if math.isnan(apart) else apart,
        )


def _small_changes(network: Network, batch: Batch, number: int, target: Labels) -> tuple[float, float]:
    """`flat` and `apart` in float64, NaN of a network (or a device) that knows no float64."""
    try:
        double = copy.deepcopy(network).double()
        # inside (0, 1), so that a clamp in front of the network is no edge
        flat = _flat(double, 0.01 + 0.98 * batch.images.double())
        return flat, _apart(double, probes.inner(batch, number).double(), target)
    except (RuntimeError, TypeError):
        return math.nan, math.nan


@torch.no_grad()
def _flat(network: Network, images: Images) -> float:
    same = network(images) == network(images + TINY * signs(images, 0))
    return float(same.all(1).double().mean())


def _apart(network: Network, images: Images, target: Labels) -> float:
    gradient = gradient_of(network, images, target)
    if gradient is None:
        return math.nan
    promised, real = [], []
    with torch.no_grad():
        for seed in range(1, DIRECTIONS + 1):
            across = signs(images, seed)
            ahead, behind = (cross_entropy(network(images + step * across), target) for step in (TINY, -TINY))
            real.append((ahead - behind) / (2 * TINY))
            promised.append((gradient * across).flatten(1).sum(1))
    told, seen = torch.cat(promised), torch.cat(real)
    return float((told - seen).norm() / torch.maximum(told.norm(), seen.norm()))


def judge(looks: Sequence[CloserLook]) -> dict[str, Verdict]:
    """A verdict for each probe, from what was seen on some images."""
    random = any(seen.blurred for seen in looks)
    blur = "the output is random, which hides this; see random_output"
    return {
        "random_output": _random(looks),
        "batch_dependent": unchecked(blur) if random else _batch(looks),
        "output_values": _values(looks),
        "logits_scale": _scale(looks),
        "zero_gradients": _zero(looks),
        "flat_output": unchecked(blur) if random else _flatness(looks),
        "gradient": unchecked(blur) if random else _gradient(looks),
    }


def _random(looks: Sequence[CloserLook]) -> Verdict:
    change = max(seen.random for seen in looks)
    if not any(seen.blurred for seen in looks):
        return fine("The same image gives the same output.", change=change)
    return doubtful(
        f"The same image gives another output each time (logits move by {change:.2g} of the largest), so each gradient "
        "is that of another network.",
        "make the randomness a draw(rng) of the network and average gradients over draws, pgd(draws=10), or fix it",
        change=change,
    )


def _batch(looks: Sequence[CloserLook]) -> Verdict:
    change = max((seen.first.batch for seen in looks if not math.isnan(seen.first.batch)), default=math.nan)
    if math.isnan(change):
        return unchecked("the network takes one image at a time")
    told = f"Another image in the batch moves the logits of an image by {change:.2g} of the largest"
    if not any(depends_on_batch(seen.first) for seen in looks):
        return fine(told + ".", change=change)
    return doubtful(
        told + ", so every figure depends on the batch size, and an attack can do its work through other images.",
        "look for batch statistics (batch norm that is not in evaluation mode, means over axis 0); or measure with batches of 1",
        change=change,
    )


def _values(looks: Sequence[CloserLook]) -> Verdict:
    values = min(seen.values for seen in looks)
    if not all(seen.finite for seen in looks):
        return doubtful("Some outputs are NaN or infinite.", "find the layer that overflows", values=values)
    if values <= FEW:
        return doubtful(
            f"The output holds only {values} different numbers: it is a decision, not logits, and a decision has no slope.",
            "attack the logits before the decision: write them as soft() of the network; or search, which needs no gradient",
            values=values,
        )
    if any(seen.probabilities for seen in looks):
        return doubtful(
            "The outputs are probabilities; the cross-entropy of their softmax is flat.",
            "give the network's logits, before the softmax",
            values=values,
        )
    return fine("The outputs are finite numbers of many values, no decisions and no probabilities.", values=values)


def _scale(looks: Sequence[CloserLook]) -> Verdict:
    share = sum(seen.saturated for seen in looks) / len(looks)
    margin = sorted(seen.margin for seen in looks)[len(looks) // 2]
    told = (
        f"At {share:.0%} of the pixels the softmax rounds to exactly 1; the median margin of the logits is {margin:.3g}"
    )
    if share <= 0.5:
        return fine(told + ".", saturated=share, margin=margin)
    return doubtful(
        told + ". Where such a pixel is right, the cross-entropy has no gradient.",
        "divide the logits by a constant (the labels stay), or apgd(objective='margin'), which does not saturate",
        saturated=share,
        margin=margin,
    )


def _zero(looks: Sequence[CloserLook]) -> Verdict:
    shares = [seen.first.zero for seen in looks if seen.first.zero is not None]
    if len(shares) < len(looks):
        return doubtful(
            "No gradient flows from the output to the image.",
            "remove what cuts it (detach, argmax, no_grad), or attack a differentiable stand-in: soft() of the network",
            share=1.0,
        )
    share = sum(shares) / len(shares)
    told = f"The gradient is exactly 0 at {share:.1%} of the image values"
    if share <= 0.05:
        return fine(told + ".", share=share)
    return doubtful(
        told + ": attacks that follow it leave these alone.",
        "look for rounding, hard thresholds or detached parts in front of the network; try search, or transfer",
        share=share,
    )


def _flatness(looks: Sequence[CloserLook]) -> Verdict:
    share = sum(seen.flat for seen in looks) / len(looks)
    if math.isnan(share):
        return unchecked("the network does not run in float64, where tiny changes can be seen")
    told = f"When every value moves by 0.00001, the logits stay the same to the last bit at {share:.0%} of the pixels"
    if share <= 0.5:
        return fine(told + ".", share=share)
    return doubtful(
        told + ": the output is a staircase, as behind a front that rounds its input.",
        "attack through a smooth stand-in of the front (its identity, say, as soft()), or without gradients: search",
        share=share,
    )


def _gradient(looks: Sequence[CloserLook]) -> Verdict:
    known = [seen.apart for seen in looks if not math.isnan(seen.apart)]
    if not known:
        return unchecked("there is no gradient to hold tiny changes against; see zero_gradients and flat_output")
    apart = sum(known) / len(known)
    told = f"Tiny changes of the image move the loss otherwise than the gradient says by {apart:.0%}"
    if apart <= 0.3:
        return fine(told + ".", apart=apart)
    return doubtful(
        told + ": the gradient is not that of what is measured.",
        "look for detached parts, custom backward passes and straight-through tricks; try search, or transfer",
        apart=apart,
    )
