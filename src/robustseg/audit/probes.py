"""A close look at a network, without an attack: is its output made so that gradients mislead?

On each image: the output twice, its values and margins, its gradient, and in float64 what tiny changes really do. The
gradient is the one that attacks follow, that of `Network.soft()` and of one draw of a network that draws; so are the
outputs that it is held against.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from robustseg.audit.verdicts import Verdict, doubtful, fine, unchecked
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Images, Labels, Network, frozen
from robustseg.evaluation.flags import (
    FEW,
    are_probabilities,
    different_values,
    gradient_of,
    random_change,
    saturation,
    zero_share,
)
from robustseg.losses.pixelwise import cross_entropy

TINY = 1e-5
"""The size of the changes that probe: far below the 1/255 of an image, far above the rounding of float64 and float32."""

DIRECTIONS = 8


CHECKS = ("random_output", "output_values", "logits_scale", "zero_gradients", "flat_output", "gradient")
"""What `judge` gives a verdict on."""


class Look(NamedTuple):
    """What was seen on one image.

    Args:
        random: largest relative change of the output between four passes. finite, probabilities: of the output.
        values: how many different numbers it holds. saturated: see `flags.saturation`.
        margin: median over the pixels of the difference of the two largest logits.
        zero: share of exactly zero gradients, None where no gradient flows.
        flat: NaN where the network knows no float64; share of the pixels whose logits stay the same to the last bit when every value moves by `TINY`.
        apart: how far the gradient is from finite differences, 0 to 2, NaN where both are 0.
    """

    random: float
    finite: bool
    probabilities: bool
    values: int
    saturated: float
    margin: float
    zero: float | None
    flat: float
    apart: float


def look(network: Network, batch: Batch) -> Look:
    """Look at a network on one image (a batch of one on its device): about 25 passes, most of them in float64."""
    images, labels = batch.images, batch.labels
    guide = network.soft().draw(ImageRng(0, batch.ids)).eval()
    with frozen(network, guide):
        with torch.no_grad():
            first = network(images)
            random = max(random_change(first, network(images)) for _ in range(3))  # few draws may agree by chance
            logits = guide(images)
        top = logits.topk(2, dim=1).values
        zero = zero_share(gradient_of(guide, images, labels, logits.argmax(1)))
        # inside (0, 1), so that a clamp in front of the network is no edge
        inner = 0.01 + 0.98 * images
        flat, apart = _small_changes(guide, inner, labels.where(labels != IGNORE, logits.argmax(1)))
        return Look(
            random,
            bool(torch.isfinite(logits).all()),
            are_probabilities(logits),
            different_values(logits),
            saturation(logits),
            float((top[:, 0] - top[:, 1]).median()),
            zero,
            flat,
            apart,
        )


def _small_changes(network: Network, images: Images, labels: Labels) -> tuple[float, float]:
    """`flat` and `apart` in float64, NaN of a network (or a device) that knows no float64."""
    try:
        double, images = copy.deepcopy(network).double(), images.double()
        return _flat(double, images), _apart(double, images, labels)
    except (RuntimeError, TypeError):
        return math.nan, math.nan


@torch.no_grad()
def _flat(network: Network, images: Images) -> float:
    same = network(images) == network(images + TINY * _signs(images, 0))
    return float(same.all(1).double().mean())


def _apart(network: Network, images: Images, labels: Labels) -> float:
    gradient = gradient_of(network, images, labels, labels)
    if gradient is None:
        return math.nan
    promised, real = [], []
    with torch.no_grad():
        for seed in range(1, DIRECTIONS + 1):
            signs = _signs(images, seed)
            ahead, behind = (cross_entropy(network, images + step * signs, labels) for step in (TINY, -TINY))
            real.append((ahead - behind) / (2 * TINY))
            promised.append((gradient * signs).flatten(1).sum(1))
    told, seen = torch.cat(promised), torch.cat(real)
    return float((told - seen).norm() / torch.maximum(told.norm(), seen.norm()))


def _signs(like: Tensor, seed: int) -> Tensor:
    draw = torch.rand(like.shape, generator=torch.Generator().manual_seed(seed))
    return (draw < 0.5).to(like) * 2 - 1


def judge(looks: Sequence[Look]) -> dict[str, Verdict]:
    """A verdict for each probe, from what was seen on some images."""
    random = max(seen.random for seen in looks) > 1e-4
    blur = "the output is random, which hides this; see random_output"
    return {
        "random_output": _random(looks),
        "output_values": _values(looks),
        "logits_scale": _scale(looks),
        "zero_gradients": _zero(looks),
        "flat_output": unchecked(blur) if random else _flatness(looks),
        "gradient": unchecked(blur) if random else _gradient(looks),
    }


def _random(looks: Sequence[Look]) -> Verdict:
    change = max(seen.random for seen in looks)
    if change <= 1e-4:
        return fine("The same image gives the same output.", change=change)
    return doubtful(
        f"The same image gives another output each time (logits move by {change:.2g} of the largest), so each gradient "
        "is that of another network.",
        "make the randomness a draw(rng) of the network and average gradients over draws, pgd(draws=10), or fix it",
        change=change,
    )


def _values(looks: Sequence[Look]) -> Verdict:
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


def _scale(looks: Sequence[Look]) -> Verdict:
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


def _zero(looks: Sequence[Look]) -> Verdict:
    shares = [seen.zero for seen in looks if seen.zero is not None]
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


def _flatness(looks: Sequence[Look]) -> Verdict:
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


def _gradient(looks: Sequence[Look]) -> Verdict:
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
