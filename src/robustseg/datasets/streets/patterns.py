"""Patterns averaged over the footprint of a pixel, and what a material is told about the points it colours."""

from typing import NamedTuple

import torch
from torch import Tensor


class Surface(NamedTuple):
    """Points of one material: `solid [m]`, `local [m, 3]` (metres, y down), `half [m, 3]`, `own` and world `normal`,
    `cap` (end of a tube), `colours [m, 3, 3]`, `traits [m, t]`, `pixel` (metres a pixel spans, seen squarely),
    `facing` (cosine), `point` in the world, and the `planes` of all solids."""

    solid: Tensor
    local: Tensor
    half: Tensor
    own: Tensor
    normal: Tensor
    cap: Tensor
    colours: Tensor
    traits: Tensor
    pixel: Tensor
    facing: Tensor
    point: Tensor
    planes: Tensor


class Paint(NamedTuple):
    """What a surface does with light: albedo `[n, 3]`, mirror share `[n]`, own light `[n, 3]` or None."""

    albedo: Tensor
    mirror: Tensor
    glow: Tensor | None = None


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """`a` where share is 0, `b` where it is 1."""
    return a + (b - a) * share


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of rows of three, `[n]`; quicker than a sum over so short an axis."""
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def step(x: Tensor, edge: Tensor | float, width: Tensor) -> Tensor:
    """0 below the edge, 1 above, rising over `width` (a pixel's footprint)."""
    return ((x - edge) / width.clamp_min(1e-6) + 0.5).clamp(0, 1)


def band(
    x: Tensor, centre: Tensor | float, wide: Tensor | float, width: Tensor, period: Tensor | float | None = None
) -> Tensor:
    """1 within `wide / 2` of the centre (of every period), averaged over a footprint of `width`."""
    away = x - centre
    if period is not None:
        away = away - torch.round(away / period) * period
    width = width.clamp_min(1e-6)
    wide = wide if isinstance(wide, Tensor) else torch.full_like(width, wide)
    covered = ((wide / 2 - away.abs()) / width + 0.5).clamp(0, 1) * (wide / width).clamp_max(1)
    if period is None:
        return covered
    share = (width / period - 0.5).clamp(0, 1)  # wider than the period: only the mean is left
    return mix(covered, wide / period, share)
