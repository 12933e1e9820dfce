"""How a camera moved between two frames, from the depth of one: direct visual odometry, which learns nothing.

With the right motion the other frame, warped by depth and motion, is this one. Its grey values are a function of six numbers, so
Gauss-Newton finds them, from coarse images to fine ones: as far as things stay near their place in images of an eighth of the size, where
those are large enough. A
motion network answers at once but knows only motions like those that it was trained on. Where traffic fills the view this may follow
the traffic, and what is wrong with the depth it makes up for by the motion; less so where each block of pixels may stand nearer or further
than its depth says, as the blocks' factors are then found together with the six numbers.

Sources: Lucas, Kanade, IJCAI 1981 (alignment by gradients); Steinbrücker, Sturm, Cremers, ICCV Workshops 2011 (of frames with depth, coarse
to fine); Kerl, Sturm, Cremers, ICRA 2013 (weights of residuals).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from robustseg.core.errors import ShapeError
from robustseg.core.types import Images, Pose
from robustseg.depth.geometry import NEAR, back_project, rigid_pose, shrink_intrinsics, transform, warp

STEPS = {8: 8, 4: 8, 2: 8, 1: 8}
"""At which parts of the images' size they are aligned, one after the other, with how many steps of Gauss-Newton."""
TRACKING = {1: 3}
"""From a pose that is about right, which smaller images would only make worse."""
SMALLEST = 16
"""Pixels that the shorter side must have to be aligned at less than its size; from fewer, six numbers are found badly (`LOG.md`)."""
BLOCK = 8
"""Pixels along the sides of the blocks that share a factor on their depth."""
STIFFNESS = 0.003
"""The price of changing a block's inverse depth in a step, a pixel, in squared grey values: the larger, the less it changes."""
FURTHEST = 0.3
"""By what part of itself a block's inverse depth may change in a step."""
OUTLIER = 0.02
"""From which difference of grey values on a pixel counts by its sign and not its size (Huber): what is hidden or moves by itself."""


def align(
    images: Images,
    others: Float[Tensor, "_ 3 _ _"],
    depth: Float[Tensor, "_ _ _"],
    pose: Float[Tensor, "_ 4 4"],
    intrinsics: Float[Tensor, "_ 3 3"],
    *,
    steps: Mapping[int, int] = STEPS,
    believed: bool = True,
) -> Pose:
    """The pose of each frame's camera to that of the other frame, such that they look alike; no gradient flows.

    Args:
        images, others: `[b, 3, h, w]` in [0, 1]. depth: `[b, h, w]`, of `images`; shifts come in its unit, and pixels
            where it is no number do not count.
        pose: `[b, 4, 4]`, where to start. intrinsics: `[b, 3, 3]`, pixels.
        steps: of Gauss-Newton at each part of the size, `STEPS` or `TRACKING`.
        believed: False: in each step each block of 8x8 pixels may come nearer or go further off, at a price. Of a depth that is biased
            turn and direction are found better so, the length comes out shorter; of the true one all are found worse.

    Returns:
        `[b, 4, 4]`. At each size what was found is taken only where it explains the frame better with the depth as given, on the pixels that it and what it
        began with both see, and sees at least half of those; so it may be `pose` itself.

    Raises:
        ShapeError: the sizes do not fit each other.

    Source: Steinbrücker et al. 2011, with Huber's weights in place of none. The factors of blocks are eliminated as those of points are in
        bundle adjustment (Triggs et al., Vision Algorithms 1999, section 6).
    """
    if others.shape != images.shape or min(images.shape[-2:]) < 2:
        raise ShapeError(
            f"expected two images of one size, 2x2 or more, got {list(images.shape)} and {list(others.shape)}; try two frames of a video"
        )
    with torch.no_grad():
        for part, count in steps.items():
            if min(images.shape[-2:]) // part < SMALLEST and part > 1:
                continue
            frame, other = (_grey(F.avg_pool2d(x, part)) for x in (images, others))
            down, across = torch.gradient(other, dim=(2, 3))
            sloped = torch.cat([other, across, down], 1)
            coarse = depth if part == 1 else 1 / F.avg_pool2d(1 / depth.unsqueeze(1), part).squeeze(1)
            camera, found, bent = shrink_intrinsics(intrinsics, part), pose, coarse
            for _ in range(count):
                found, bent = _step(frame, sloped, bent, found, camera, believed=believed)
            pose = torch.where(_explains(frame, other, coarse, found, pose, camera).view(-1, 1, 1), found, pose)
    return pose


def _grey(images: Tensor) -> Tensor:
    """`[b, 1, h, w]`, smoothed so that gradients reach further than a pixel."""
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(grey, 3, stride=1)


def _step(
    frame: Tensor, sloped: Tensor, depth: Tensor, pose: Tensor, intrinsics: Tensor, *, believed: bool
) -> tuple[Tensor, Tensor]:
    """One step of Gauss-Newton: how the grey value seen by each pixel changes as the other camera shifts and turns, and as blocks come nearer.

    The factors on the depth of the blocks are eliminated from the equations (Schur complement), as each stands in its own pixels alone.

    Args:
        sloped: `[b, 3, h, w]`, the other frame and how it changes across and down.
    """
    height, width = depth.shape[-2:]
    seen, valid = warp(sloped, depth, pose, intrinsics)
    points = transform(back_project(depth, intrinsics), pose)
    valid = valid.unsqueeze(1)
    # what is not seen tells nothing; a product with 0 would keep what is no number
    value, right, below = torch.where(valid, seen, 0).flatten(2).unbind(1)
    x, y, z = torch.where(valid, points, 1).flatten(2).unbind(1)
    z = z.clamp_min(NEAR)
    by_x, by_y = right * intrinsics[:, 0, 0, None] / z, below * intrinsics[:, 1, 1, None] / z
    by_z = -(by_x * x + by_y * y) / z
    change = torch.stack([by_z * y - by_y * z, by_x * z - by_z * x, by_y * x - by_x * y, by_x, by_y, by_z], 1)
    apart = torch.where(valid.flatten(1), value - frame.flatten(1), 0).unsqueeze(1)
    weights = OUTLIER / apart.abs().clamp_min(OUTLIER)
    weighed = weights * change
    normal, pulled = weighed @ change.mT, weighed @ apart.mT
    if not believed:

        def of_blocks(values: Tensor) -> Tensor:
            shaped = values.unflatten(2, (height, width))
            return F.avg_pool2d(shaped, BLOCK, ceil_mode=True, divisor_override=1).flatten(2)  # sums

        nearer = pose[:, :3, 3].unsqueeze(1) @ change[:, 3:]  # as a block's inverse depth grows by its own part
        shared = of_blocks(weighed * nearer)
        stiff = of_blocks(weights * nearer.square()) + STIFFNESS * BLOCK**2
        pull = of_blocks(weights * nearer * apart)
        normal, pulled = normal - (shared / stiff) @ shared.mT, pulled - (shared / stiff) @ pull.mT
    damped = normal + torch.diag_embed(1e-3 * normal.diagonal(dim1=1, dim2=2).clamp_min(0) + 1e-6)
    found = torch.linalg.solve(damped, -pulled)
    if not believed:
        growth = (-(pull + found.mT @ shared) / stiff).clamp(-FURTHEST, FURTHEST)
        blocks = growth.unflatten(2, (-(-height // BLOCK), -(-width // BLOCK)))
        depth = depth / (1 + F.interpolate(blocks, scale_factor=float(BLOCK))[:, 0, :height, :width])
    turn, shift = found.squeeze(2).split(3, 1)
    return rigid_pose(turn, shift) @ pose, depth


def _explains(frame: Tensor, other: Tensor, depth: Tensor, found: Tensor, pose: Tensor, intrinsics: Tensor) -> Tensor:
    """`[b]`: whether what was found explains the frame better than the pose that it began with."""
    (new, new_valid), (old, old_valid) = (warp(other, depth, guess, intrinsics) for guess in (found, pose))
    both = (new_valid & old_valid).unsqueeze(1)
    gain = torch.where(both, (old - frame).abs() - (new - frame).abs(), 0).sum((1, 2, 3))
    sees = 2 * both.sum((1, 2, 3)) >= old_valid.sum((1, 2))
    return (gain > 0) & sees & found.isfinite().all(2).all(1)
