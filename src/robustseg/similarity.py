"""How alike two images look, pixel by pixel."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def ssim(first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"], *, window: Tensor | None = None) -> Tensor:
    """Structural similarity of images in [0, 1] at each pixel, mean over the colours, `[b, h, w]`, at most 1 but for rounding.

    Args:
        first, second: `[b, c, h, w]`; borders are reflected.
        window: weights `[n]` along each axis, n odd, with sum 1; None is a Gaussian of deviation 1.5 over 11 pixels.
            `torch.full((3,), 1 / 3)` is the 3x3 mean of Godard et al., CVPR 2017.

    Raises:
        RuntimeError: an image no larger than half the window.

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
        self._first = self._padded(first)
        self._mean = self._local(self._first)
        self._variance = self._local(self._first.square()) - self._mean.square()

    def __call__(self, second: Float[Tensor, "b c h w"]) -> Tensor:
        """`ssim(first, second)`, `[b, h, w]`."""
        second = self._padded(second)
        mean_1, mean_2 = self._mean, self._local(second)
        square_1, square_2, product = mean_1.square(), mean_2.square(), mean_1 * mean_2
        variance = self._variance + (
            self._local(second.square()) - square_2
        )  # unclamped: 1 exactly where both are the same
        together = self._local(self._first * second) - product
        below = (square_1 + square_2 + 0.01**2) * (variance + 0.03**2)
        return ((2 * product + 0.01**2) * (2 * together + 0.03**2) / below).mean(1)

    def _padded(self, values: Tensor) -> Tensor:
        return F.pad(values, (len(self._weights) // 2,) * 4, mode="reflect")

    def _local(self, padded: Tensor) -> Tensor:
        local: Tensor = _Windowed.apply(padded, self._weights)
        return local


class _Windowed(torch.autograd.Function):
    """Weighted means in a window along both axes, of what the window fits in: `[b, c, h, w]` to `[b, c, h - n + 1, w - n + 1]`.

    Sums of shifted images: on CPUs ten times as fast, there and back, as convolutions of one channel. The way back is by hand,
    since that through slices fills an image with zeros for each.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: tuple[float, ...]) -> Tensor:
        ctx.weights = weights
        for axis in (2, 3):
            size = values.shape[axis] - len(weights) + 1
            total = weights[0] * values.narrow(axis, 0, size)
            for i, weight in enumerate(weights[1:], 1):
                total.add_(values.narrow(axis, i, size), alpha=weight)
            values = total
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        for axis in (3, 2):
            size = list(gradient.shape)
            size[axis] += len(ctx.weights) - 1
            total = gradient.new_zeros(size)
            for i, weight in enumerate(ctx.weights):
                total.narrow(axis, i, gradient.shape[axis]).add_(gradient, alpha=weight)
            gradient = total
        return gradient, None
