"""How alike two images look, pixel by pixel."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from robustseg.core.errors import ShapeError


def ssim(first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"], *, window: Tensor | None = None) -> Tensor:
    """Structural similarity of images in [0, 1] at each pixel, mean over the colours, `[b, h, w]`, at most 1 but for rounding.

    Args:
        first, second: `[b, c, h, w]`; borders are reflected.
        window: weights `[n]` along each axis, n odd, with sum 1; None is a Gaussian of deviation 1.5 over 11 pixels.
            `torch.full((3,), 1 / 3)` is the 3x3 mean of Godard et al., CVPR 2017.

    Raises:
        ShapeError: the sizes differ. RuntimeError: an image no larger than half the window.

    Differentiable once, in both images, at float32 or wider.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, equation 13; K1 = 0.01, K2 = 0.03.
    """
    return Likeness(first, window=window)(second)


class Likeness:
    """`ssim` of one image with any number of others: what is local to the first is made once.

    Args:
        first, window: see `ssim`.
    """

    def __init__(self, first: Float[Tensor, "b c h w"], *, window: Tensor | None = None):
        if window is None:
            window = (-torch.arange(-5.0, 6.0).square() / (2 * 1.5**2)).exp()
            window = window / window.sum()
        self._weights: tuple[float, ...] = tuple(window.tolist())
        self._shape = first.shape
        self._first = self._padded(first)
        with torch.no_grad():  # the way back of `_Likeness` counts their part
            self._mean = _local(self._first, self._weights)
            self._variance = _local(self._first.square(), self._weights) - self._mean.square()

    def __call__(self, second: Float[Tensor, "b c h w"]) -> Tensor:
        """`ssim(first, second)`, `[b, h, w]`."""
        if second.shape != self._shape:
            raise ShapeError(
                f"expected images {list(self._shape)} to compare, got {list(second.shape)}; try as many, of one size"
            )
        known = self._mean, self._variance, self._weights
        likeness: Tensor = _Likeness.apply(self._first, self._padded(second), *known)
        return likeness.mean(1)

    def _padded(self, values: Tensor) -> Tensor:
        return F.pad(values, (len(self._weights) // 2,) * 4, mode="reflect")


class _Likeness(torch.autograd.Function):
    """SSIM of each colour of padded images, given the local mean and variance of the first, which are not differentiated again.

    The way back is by hand, with fewer passes over the images than that through each operation.

    With m, v and c the local means, variances and covariance it is `(2 m1 m2 + C1) (2 c + C2) / ((m1^2 + m2^2 + C1) (v1 + v2 + C2))`,
    exactly 1 where both are the same, as no variance that rounding makes negative is clamped.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, mean: Tensor, variance: Tensor, weights: tuple[float, ...]
    ) -> Tensor:
        other = _local(second, weights)
        product, square = mean * other, other.square()
        means = (mean.square().add_(square)).add_(0.01**2)
        variances = _local(second.square(), weights).sub_(square).add_(variance).add_(0.03**2)
        together = _local(first * second, weights).sub_(product).mul_(2).add_(0.03**2)
        product.mul_(2).add_(0.01**2)
        likeness = (product * together).div_(means * variances)
        ctx.save_for_backward(first, second, mean, other, product, together, means, variances, likeness)
        ctx.weights = weights
        return likeness

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "expected one derivative of the structural similarity, got a second; try create_graph=False"
            )
        first, second, mean, other, product, together, means, variances, likeness = ctx.saved_tensors
        # of the local mean of first * second, of the squares (the same for both images), and the parts of the local means
        share = gradient / (means * variances)
        crossed = (share * product).mul_(2)
        lost = gradient * likeness
        squared = lost / variances
        across = share.mul_(together - product)
        along = squared - lost.div_(means)
        crossed, squared = _spread(crossed, ctx.weights), _spread(squared, ctx.weights).mul_(2)

        def back(image: Tensor, partner: Tensor, own: Tensor, others: Tensor) -> Tensor:
            local = (across * others).addcmul_(along, own).mul_(2)
            return _spread(local, ctx.weights).addcmul_(partner, crossed).addcmul_(image, squared, value=-1)

        wanted = ctx.needs_input_grad
        to_first = back(first, second, mean, other) if wanted[0] else None
        return to_first, back(second, first, other, mean) if wanted[1] else None, None, None, None


def _local(values: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Weighted means in a window along both axes, of what the window fits in: `[b, c, h, w]` to `[b, c, h - n + 1, w - n + 1]`.

    Sums of shifted images: on CPUs ten times as fast as convolutions of one channel.
    """
    for axis in (2, 3):
        size = values.shape[axis] - len(weights) + 1
        total = weights[0] * values.narrow(axis, 0, size)
        for i, weight in enumerate(weights[1:], 1):
            total.add_(values.narrow(axis, i, size), alpha=weight)
        values = total
    return values


def _spread(gradient: Tensor, weights: tuple[float, ...]) -> Tensor:
    """The gradient in what `_local` averaged."""
    for axis in (3, 2):
        size = list(gradient.shape)
        size[axis] += len(weights) - 1
        total = gradient.new_zeros(size)
        for i, weight in enumerate(weights):
            total.narrow(axis, i, gradient.shape[axis]).add_(gradient, alpha=weight)
        gradient = total
    return gradient
