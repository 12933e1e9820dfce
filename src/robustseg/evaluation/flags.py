"""What makes a number doubtful, looked at on one image of each network that is measured.

* `random_output`: the same images gave other logits the second time; a gradient then needs averaging over draws.
* `probabilities`: the outputs are probabilities instead of logits; their cross-entropy gradient vanishes early.
* `few_values`: the outputs take at most 256 values: a decision (one-hot, a vote) instead of logits.
* `not_finite`: some logits are NaN or infinite.
* `saturated`: the share of pixels, where above half, whose softmax rounds to exactly 1 in float32; where such a pixel is
  right, its cross-entropy has no gradient.
* `zero_gradients`: the share of image values whose loss gradient, that of `Network.soft()`, is exactly 0, where above 5 %: an
  attack that follows gradients is then weaker than it looks. True where no gradient flows at all.

Two flags are of the data, over all images that were measured:

* `no_labels`: no pixel is labelled.
* `absent_classes`: how many classes label no pixel, as where the class list is another one or a class is taken for void;
  mIoU is then the mean over the other classes.

`robustseg.evaluation.run` adds `not_clipped` (the spec asks for a variant that leaves [0, 1]). False is "looked at and fine".
`robustseg.audit` looks closer.
"""

import torch
from torch import Tensor

from robustseg.core.errors import ShapeError
from robustseg.core.labels import IGNORE
from robustseg.core.types import Images, Labels, Logits, Network, frozen, gradient_in
from robustseg.losses.pixelwise import cross_entropy
from robustseg.results.record import Counts

FEW = 256
"""So many different output values are a decision: more than any vote has, fewer than the logits of a small image."""


def doubts(network: Network, images: Images, labels: Labels) -> dict[str, bool | float]:
    """Look at a network; three passes and one back.

    Args:
        network: left as it was. images: `[b, 3, h, w]` in [0, 1]. labels: `[b, h, w]`, void 255.

    Returns:
        Flag -> value, see the head of this file.

    Raises:
        ShapeError: the logits are not at the size of the images.
    """
    guide = network.soft()
    with frozen(network, guide):
        with torch.no_grad():
            first, second = network(images), network(images)
        if first.shape[:1] + first.shape[2:] != labels.shape:
            raise ShapeError(
                f"expected logits of {network.spec} at the input size {tuple(labels.shape)}, got {tuple(first.shape)}; "
                "try robustseg.adapt, which brings logits to the input size"
            )
        saturated, zero = saturation(first), zero_share(gradient_of(guide, images, labels, first.argmax(1)))
        return {
            "random_output": random_change(first, second) > 1e-4,
            "probabilities": are_probabilities(first),
            "few_values": different_values(first) <= min(FEW, first.numel() // 4),
            "not_finite": not bool(torch.isfinite(first).all()),
            "saturated": saturated if saturated > 0.5 else False,
            "zero_gradients": True if zero is None else zero if zero > 0.05 else False,
        }


def label_doubts(counts: Counts) -> dict[str, bool | int]:
    """Flag -> value of what the labels of all measured images lack, see the head of this file."""
    absent = int(((counts.tp + counts.fn).sum(0) == 0).sum())
    return {"no_labels": absent == counts.tp.shape[1], "absent_classes": absent or False}


def random_change(first: Logits, second: Logits) -> float:
    """The largest change between two outputs for the same images, relative to the largest logit."""
    return float((first - second).abs().amax() / first.abs().amax().clamp_min(1e-12))


def are_probabilities(logits: Logits) -> bool:
    """Whether all values are in [0, 1] and sum to 1 at each pixel."""
    sums = logits.sum(1)
    bounded = bool(logits.min() >= 0 and logits.max() <= 1)
    return bounded and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def different_values(logits: Logits) -> int:
    """How many different numbers the output holds."""
    return int(logits.unique().numel())


def saturation(logits: Logits) -> float:
    """The share of pixels whose largest softmax is exactly 1 in float32: the logits are more than 16.6 apart."""
    return float((logits.float().softmax(1).amax(1) == 1).double().mean())


def gradient_of(network: Network, images: Images, labels: Labels, predictions: Labels) -> Tensor | None:
    """The cross-entropy gradient in the images, None where none flows.

    Args:
        network: frozen by the caller. images: `[b, 3, h, w]`. labels: `[b, h, w]`, void 255.
        predictions: stand in for void: that a pixel has no label says nothing of the network.
    """
    leaf = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        loss = cross_entropy(network, leaf, labels.where(labels != IGNORE, predictions))
    return gradient_in(loss, leaf)


def zero_share(gradient: Tensor | None) -> float | None:
    """The share of values that are exactly 0; None of no gradient."""
    return None if gradient is None else float((gradient == 0).double().mean())
