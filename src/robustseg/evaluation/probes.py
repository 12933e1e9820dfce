"""What a few passes of one image show: does a network repeat itself, label each image alone, and mean its gradient?

`robustseg.evaluation.flags` makes flags of it for every run, `robustseg.audit` findings. The image is moved inside (0, 1) and
by a noise of 1/255 first, so that a clamp, equal neighbours under a maximum, and whole grey levels are no edges, and so that
no network has seen it before.

The gradient is the one that attacks follow, that of `Network.soft()` and of one draw of a network that draws.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Images, Labels, Logits, Network, frozen, gradient_in, most_likely
from robustseg.losses.pixelwise import image_mean, pixel_cross_entropy

STEP = 1e-4
"""The size of the changes that probe: far below the 1/255 of an image, far above the rounding of float32."""

COARSE = 2e-3
"""The same for a network that computes in 16 bits, which sees nothing smaller."""

JUMPS = 5e-6
"""Changes of the cross-entropy that mean nothing: those of an untrained network that pools by indices are as large."""

HALVES = (torch.float16, torch.bfloat16)


class Look(NamedTuple):
    """What was seen on one image.

    Args:
        logits: `[1, k, h, w]`, of the network. halves: something in it is computed in 16 bits.
        random: largest relative change of the logits when the image is given again, then with a gradient asked for.
        batch: the same when another image is in the batch; NaN of a network that takes one image at a time.
        zero: share of the image values whose gradient is exactly 0 although the output depends on them, 1 where all are;
            None where no gradient flows.
        apart: how far the gradient is from finite differences, 0 to 2; NaN where there is nothing to compare.
    """

    logits: Logits
    halves: bool
    random: float
    batch: float
    zero: float | None
    apart: float


def inner(batch: Batch, number: int = 0) -> Images:
    """The image of a batch of one as the look of this number sees it, within 0.006 .. 0.994."""
    return 0.01 + 0.98 * batch.images + _uniform(batch.images, number) / 255


def look(network: Network, batch: Batch, *, number: int = 0) -> Look:
    """Look at a network on one image (a batch of one on its device): eight forward passes, or what costs as much.

    Args:
        network: left as it was, but for what it keeps itself.
        batch: one image.
        number: of this look at the network. Each adds other noise; at odd ones the other image of the batch of two comes first.

    Raises:
        ShapeError: the logits are not at the size of the images.
    """
    images, guide = inner(batch, number), network.soft().draw(ImageRng(0, batch.ids))
    with frozen(network, guide):
        with _Halves() as halves:
            first = answer(network, images)
        low = halves.seen or any(value.dtype in HALVES for value in (*network.parameters(), *network.buffers()))
        leaf = images.detach().clone().requires_grad_()
        with torch.enable_grad():
            again = network(leaf)
            own = again if guide is network else guide(leaf)
        random = relative_change(first, again.detach())
        target = batch.labels.where(batch.labels != IGNORE, most_likely(first))
        zero, apart = _gradient(guide, leaf, own, target, low)
        if random > 1e-4 and zero and zero < 1:  # the output moves by itself, not with these values
            zero = 0.0
        return Look(first, low, random, _beside_another(network, images, first, bool(number % 2)), zero, apart)


def answer(network: Network, images: Images) -> Logits:
    """The logits of images.

    Raises:
        ShapeError: they are not at the size of the images.
    """
    with torch.no_grad():  # not inference mode: what a network keeps from its first pass must serve gradients too
        logits = network(images)
    if logits.shape[:1] + logits.shape[2:] != images.shape[:1] + images.shape[2:]:
        raise ShapeError(
            f"expected logits of {network.spec} at the input size {tuple(images[:, 0].shape)}, got {tuple(logits.shape)}; "
            "try robustseg.adapt, which brings logits to the input size"
        )
    return logits


def relative_change(first: Logits, second: Logits) -> float:
    """The largest change between two outputs, relative to the largest difference of a logit from the mean of its pixel.

    Less than rounding is 0, so that a large constant in all logits is no change.
    """
    first, second = first.double(), second.double()
    scale = (first - first.mean(1, keepdim=True)).abs().amax()
    change = (first - second).abs().amax() - 16 * torch.finfo(torch.float32).eps * first.abs().amax()
    return float((change / scale.clamp_min(1e-12)).clamp_min(0))


def cross_entropy(logits: Logits, target: Labels) -> Tensor:
    """Mean cross-entropy of each image, float64 `[b]`."""
    return image_mean(pixel_cross_entropy(logits, target).double(), target)


def _beside_another(network: Network, images: Images, first: Logits, mirrored_first: bool) -> float:
    """`batch` of a `Look`, in inference mode, as a run counts; NaN of a network that takes one image at a time."""
    other = 0.5 * images.flip(-1)
    try:
        with torch.inference_mode():
            both = network(torch.cat((other, images) if mirrored_first else (images, other)))
    except Exception:  # whatever a module raises, or memory that one image is enough to fill
        return math.nan
    if len(both) != 2:
        return math.inf
    return relative_change(first, both[int(mirrored_first), None])


def _gradient(
    network: Network, images: Images, logits: Logits, target: Labels, halves: bool
) -> tuple[float | None, float]:
    """`zero` and `apart` of a `Look`; the images are a leaf that the logits were made from."""
    loss = cross_entropy(logits, target)
    if not logits.isfinite().all():
        return 0.0, math.nan
    try:
        gradient = gradient_in(loss, images)
    except RobustsegError:  # a backward pass that raises: clean images can be measured all the same
        gradient = None
    if gradient is None:
        return None, math.nan
    if not gradient.any():
        return 1.0, math.nan
    images, logits = images.detach(), logits.detach()
    with torch.no_grad():
        zero = 0.0 if halves else _masked(network, images, logits, gradient)
        return zero, _apart(network, images, target, logits, float(loss), gradient, halves)


def _masked(network: Network, images: Images, logits: Logits, gradient: Tensor) -> float:
    """The share of values whose gradient is exactly 0 although the logits depend on them.

    Below a maximum or a dead unit there are zeros too, but there a tiny change changes nothing.
    """
    zeros = gradient == 0
    share = float(zeros.double().mean())
    if share <= 0.05:
        return 0.0
    step = STEP * signs(images, 2)
    moved, rest = (float((network(images + step * where) - logits).norm()) for where in (zeros, ~zeros))
    return share if moved > 0.3 * rest * math.sqrt(share / (1 - share)) else 0.0


def _apart(
    network: Network, images: Images, target: Labels, logits: Logits, loss: float, gradient: Tensor, halves: bool
) -> float:
    """How far the gradient is from two finite differences: along its own signs, and, but for 16 bits, along random ones."""
    gradient, step = gradient.double(), COARSE if halves else STEP
    ignored = JUMPS + 4 * torch.finfo(torch.float32).eps * float(logits.abs().amax())

    def differ(direction: Tensor) -> tuple[float, float]:
        seen = float(cross_entropy(network(images + step * direction.to(images)), target)) - loss
        told = step * float((gradient * direction).sum())
        return max(0.0, abs(told - seen) - ignored), max(abs(told), abs(seen))

    difference, size = differ(gradient.sign())
    apart = difference / max(size, 1e-300)
    if not halves:
        # beside what the gradient makes on average, as random signs may cancel each other, and only if much larger: a
        # network that pools by indices jumps a little where two values change places
        difference, size = differ(signs(images, 1))[0], step * float(gradient.norm())
        apart = max(apart, 0.1 * difference / max(size, 1e-300))
    return min(2.0, apart) if math.isfinite(apart) else 2.0


def gradient_of(network: Network, images: Images, target: Labels) -> Tensor | None:
    """The gradient of the mean cross-entropy of each image in the images, None where none flows.

    Args:
        network: frozen by the caller. images: `[b, 3, h, w]`. target: `[b, h, w]`, void 255.
    """
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        return gradient_in(cross_entropy(network(leaf), target), leaf)


def signs(like: Tensor, seed: int) -> Tensor:
    """Random signs, the same ones for the same shape and seed."""
    return _uniform(like, seed).sign() + (_uniform(like, seed) == 0)


def _uniform(like: Tensor, seed: int) -> Tensor:
    """Numbers in [-1, 1), the same ones for the same shape and seed."""
    return 2 * torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).to(like) - 1


class _Halves(TorchFunctionMode):
    """Sees whether anything within is computed in 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.seen |= isinstance(result, Tensor) and result.dtype in HALVES
        return result
