"""Depth searched along the rays of a frame, about a depth that is already known: labels that video gives by itself.

A difference of images leads a pixel to its place only from next to it, and where several places look alike to the wrong one. So here each
pixel tries depths around its own: what other frames of the drive say about a depth is its cost (plane sweep), and of the depths of all
pixels those are taken whose costs are small and which change little from one pixel to the next (semi-global matching). What is counted as a
change is that of the *factor* on the known depth, so a road recedes and a house ends where they did before. Nothing is learned here and no
gradient flows; a training takes the answer as it takes labels.

Sources: Collins, CVPR 1996 (plane sweep); Hirschmüller, PAMI 2008 (semi-global matching, a jump costs less at edges of the image);
Scharstein, Taniai, Sinha, 3DV 2017 (changes about a surface that is known). Such answers as labels: Tosi et al., CVPR 2019; Watson et al., ICCV 2019.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from robustseg.core.errors import ShapeError
from robustseg.core.types import Depth, Images, Intrinsics, Mask, PerImage, Pose
from robustseg.depth.geometry import warp
from robustseg.depth.photometric import errors_from

STEP, STEPS = 0.12, 3
"""Depths are tried in steps of this logarithm of a factor, so many to each side: from 0.70 to 1.43 times the known one."""
BEND, JUMP = 0.2, 1.5
"""What it costs that the factor changes from one pixel to the next by a step, and by more."""
EDGE = 0.06
"""The difference of grey values at which a jump costs the e-th part."""
BESIDE = 2
"""So many depths on each side of the best are no other choice."""
CLEAR = 0.5
"""By what part of the image's median margin the second choice of a pixel must cost more, for the first to be clear."""


class Searched(NamedTuple):
    """What a search found.

    Args:
        depth: `[b, h, w]`. clear: bool `[b, h, w]`, what is to be believed: no other depth, but the two next to it on each side, costs nearly as
            little. It is not the nearest or farthest that was tried; what wants to go there is often a thing that moves by itself. And
            it explains the frame better than rest does, much as in auto-masking.
    """

    depth: Depth
    clear: Mask


def search_depth(
    images: Images,
    others: Sequence[Float[Tensor, "_ 3 _ _"]],
    depth: Depth,
    poses: Sequence[Pose],
    intrinsics: Intrinsics,
) -> Searched:
    """The depth near the known one at which other frames look like these; no gradient flows.

    Args:
        images: `[b, 3, h, w]` in [0, 1]. others: frames of the same drives, each `[b, 3, h, w]`.
        depth: `[b, h, w]`, the known one. poses: to the cameras of the others, each `[b, 4, 4]`, with shifts in its unit.
        intrinsics: `[b, 3, 3]`, pixels.

    Raises:
        ShapeError: no other frame, or not a pose for each.

    Source: see the module. A depth costs the mean of the photometric errors (`photometric.photometric_error`) of the frames that see its
        point, of grey values for speed, and 1 where none does; four paths are added up, along rows and columns; steps are refined by a parabola.
    """
    if not others or len(others) != len(poses):
        raise ShapeError(
            f"expected other frames and a pose for each, got {len(others)} and {len(poses)}; try those before and after, with their poses"
        )
    with torch.no_grad():
        grey, *others = (x.mean(1, keepdim=True) for x in (images, *others))
        error_to = errors_from(grey)
        unmoved = torch.stack([error_to(other) for other in others]).mean(0)
        costs = []
        for step in range(-STEPS, STEPS + 1):
            tried = depth * math.exp(STEP * step)
            errors = []
            for other, pose in zip(others, poses, strict=True):
                seen = warp(other, tried, pose, intrinsics, elsewhere=grey)
                errors.append(torch.where(seen.valid, error_to(seen.images), torch.nan))
            costs.append(torch.stack(errors).nanmean(0).nan_to_num(1.0))
        cost = torch.stack(costs, 1)
        total = semi_global(cost, grey)
        best = total.argmin(1, keepdim=True)
        apart = (torch.arange(total.shape[1], device=best.device).view(1, -1, 1, 1) - best).abs()
        margin = total.masked_fill(apart <= BESIDE, torch.inf).amin(1) - total.amin(1)
        sole = margin > CLEAR * margin.flatten(1).median(1).values.view(-1, 1, 1)
        inside = ((best - STEPS).abs() < STEPS).squeeze(1)
        moved = cost.gather(1, best).squeeze(1) < unmoved
        return Searched(depth * (STEP * (_refined(total, best) - STEPS)).exp(), sole & inside & moved)


def label_loss(depth: Depth, searched: Searched) -> PerImage:
    """What depth lacks to that found where it is clear, `[b]`: the mean difference of logarithms, of any scale; 0 where nothing is clear.

    The median difference of an image is taken out, as the scale that a search finds is the one that it was given.
    """
    difference = (depth / torch.where(searched.clear, searched.depth, 1)).log()
    level = torch.where(searched.clear, difference.detach(), torch.nan).flatten(1).nanmedian(1).values.nan_to_num()
    lacks: Tensor = torch.where(searched.clear, (difference - level.view(-1, 1, 1)).abs(), 0).sum((1, 2))
    return lacks / searched.clear.sum((1, 2)).clamp_min(1)


def semi_global(costs: Float[Tensor, "b n h w"], grey: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b n h w"]:
    """The costs of n choices of each pixel with those of the pixels around it that agree: the smaller, the better the choice.

    Args:
        costs: `[b, n, h, w]`, choices in order. grey: `[b, 1, h, w]`; at edges of this image a jump costs less.
    """
    total = torch.zeros_like(costs)
    for along in (2, 3):
        jump = JUMP * (-grey.diff(dim=along).abs() / EDGE).exp()
        ways = _one_way(costs, jump, along), _one_way(costs.flip(along), jump.flip(along), along).flip(along)
        total += ways[0] + ways[1]
    return total


def _one_way(costs: Tensor, jump: Tensor, along: int) -> Tensor:
    """What each choice costs with the best way to it from one border, less what the best choice before it cost."""
    pixels, jumps = costs.unbind(along), jump.unbind(along)
    way = [pixels[0]]
    for pixel, price in zip(pixels[1:], jumps, strict=True):
        before = way[-1]
        least = before.amin(1, keepdim=True)
        bent = torch.minimum(
            F.pad(before[:, :-1], (0, 0, 1, 0), value=torch.inf), F.pad(before[:, 1:], (0, 0, 0, 1), value=torch.inf)
        )
        from_best = torch.minimum(torch.minimum(before, bent + BEND), least + price)
        way.append(pixel + from_best - least)
    return torch.stack(way, along)


def _refined(total: Tensor, best: Tensor) -> Tensor:
    """The lowest place of the parabola through the best choice and those beside it, `[b, h, w]`; the first and last stay."""
    last = total.shape[1] - 1
    below, at, above = (total.gather(1, (best + i).clamp(0, last)) for i in (-1, 0, 1))
    offset = ((below - above) / (2 * (below - 2 * at + above)).clamp_min(1e-6)).clamp(-0.5, 0.5)
    return (best + offset.masked_fill((best == 0) | (best == last), 0)).squeeze(1)
