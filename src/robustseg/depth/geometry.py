"""Cameras, poses and warping: what lets one frame of a video be painted with the pixels of its neighbour.

The conventions, pinned by `test_convention_*`:

* camera axes: x right, y down, z forward (right-handed); depth is z, in metres, not the length of the ray;
* pixel centres have integer coordinates: the upper left pixel is (x, y) = (0, 0), the image spans -0.5 .. w - 0.5;
* intrinsics `[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]` in pixels: `x_pixel = fx * x / z + cx`;
* a pose `[4, 4]` maps homogeneous points of *this* camera to the *other* camera: `points_other = pose @ points_this`;
* resampling uses `grid_sample(align_corners=False)`.

Source: the view synthesis of Zhou et al. 2017, "Unsupervised Learning of Depth and Ego-Motion from Video", equation 2.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from robustseg.core.errors import ShapeError

NEAR = 1e-3
"""Points closer than this to the camera plane (metres) are behind the camera for all that follows."""

SLACK = 1e-2
"""Rounding (pixels) that may carry a point over the border of the other image without making it invalid."""


NEAREST, FARTHEST = 0.1, 100.0
"""The depths (metres) of disparities 1 and 0."""


class Projected(NamedTuple):
    """Pixel coordinates `[b, 2, h, w]` (x, then y) and depth `[b, h, w]` in metres; where depth <= 0 the point is behind."""

    pixels: Float[Tensor, "b 2 h w"]
    depth: Float[Tensor, "b h w"]


class Warped(NamedTuple):
    """Warped images `[b, c, h, w]` and where they are defined `[b, h, w]`; elsewhere they are 0, or what was asked for."""

    images: Float[Tensor, "b c h w"]
    valid: Bool[Tensor, "b h w"]


def pixel_grid(height: int, width: int, like: Tensor) -> Float[Tensor, "2 h w"]:
    """The integer coordinates of all pixel centres, x then y, with dtype and device of `like`."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack([x, y])


def back_project(depth: Float[Tensor, "b h w"], intrinsics: Float[Tensor, "_ 3 3"]) -> Float[Tensor, "b 3 h w"]:
    """The point in camera coordinates (metres) that each pixel sees: `depth * K^-1 (x, y, 1)`.

    Args:
        depth: `[b, h, w]`, metres along the optical axis.
        intrinsics: `[b, 3, 3]`, pixels.
    """
    b, h, w = depth.shape
    _require(intrinsics, (b, 3, 3), "intrinsics")
    pixels = pixel_grid(h, w, depth)
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[:1])]).flatten(1)
    rays = torch.linalg.inv(intrinsics) @ homogeneous
    return rays.view(b, 3, h, w) * depth.unsqueeze(1)


def project(points: Float[Tensor, "b 3 h w"], intrinsics: Float[Tensor, "_ 3 3"]) -> Projected:
    """The pixels that see these points.

    Args:
        points: `[b, 3, h, w]` in camera coordinates, metres.
        intrinsics: `[b, 3, 3]`, pixels.
    """
    b, _, h, w = points.shape
    _require(intrinsics, (b, 3, 3), "intrinsics")
    depth = points[:, 2]
    image = (intrinsics @ points.flatten(2)).view(b, 3, h, w)
    return Projected(image[:, :2] / depth.clamp_min(NEAR).unsqueeze(1), depth)


def transform(points: Float[Tensor, "b 3 h w"], pose: Float[Tensor, "_ 4 4"]) -> Float[Tensor, "b 3 h w"]:
    """The same points in the coordinates of the other camera: `R points + t`."""
    b, _, h, w = points.shape
    _require(pose, (b, 4, 4), "pose")
    moved = pose[:, :3, :3] @ points.flatten(2) + pose[:, :3, 3:]
    return moved.view(b, 3, h, w)


def invert_pose(pose: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """The way back: `[R t]^-1 = [R' -R't]`, exact for rigid poses."""
    inverse = torch.zeros_like(pose)
    turn = pose[..., :3, :3].mT
    inverse[..., :3, :3] = turn
    inverse[..., :3, 3:] = -turn @ pose[..., :3, 3:]
    inverse[..., 3, 3] = 1
    return inverse


def shrink_intrinsics(intrinsics: Float[Tensor, "b 3 3"], part: int) -> Float[Tensor, "b 3 3"]:
    """The cameras of images whose pixels are means of `part x part` pixels, as `avg_pool2d` makes them."""
    shrunk = intrinsics.clone()
    shrunk[:, :2] /= part
    shrunk[:, :2, 2] += 0.5 / part - 0.5
    return shrunk


def warp(
    images_next: Float[Tensor, "b c h w"],
    depth: Float[Tensor, "_ _ _"],
    pose: Float[Tensor, "_ 4 4"],
    intrinsics: Float[Tensor, "_ 3 3"],
    *,
    elsewhere: Float[Tensor, "_ _ _ _"] | None = None,
) -> Warped:
    """Paint this frame with the pixels of another: `warped(x) = images_next(project(pose back_project(depth(x))))`.

    Differentiable in images, depth, pose and intrinsics (bilinear sampling). What moved by itself or is hidden in the
    other frame comes out wrong and is not marked; `valid` only says that the sampled place lies within the other image
    and in front of its camera.

    Args:
        images_next: `[b, c, h, w]`, the other frame.
        depth: `[b, h, w]` of this frame, metres.
        pose: `[b, 4, 4]`, this camera to the other.
        intrinsics: `[b, 3, 3]`, of both.
        elsewhere: `[b, c, h, w]`, shown where the other frame shows nothing; None: black.

    Raises:
        ShapeError: the sizes do not fit each other.
    """
    b, _, h, w = images_next.shape
    _require(depth, (b, h, w), "depth")
    if elsewhere is not None:
        _require(elsewhere, tuple(images_next.shape), "elsewhere")
    pixels, depth_there = _seen_at(depth, pose, intrinsics)
    size = torch.tensor([w, h], dtype=pixels.dtype, device=pixels.device).view(1, 2, 1, 1)
    last = size - 1
    valid = ((pixels >= -SLACK) & (pixels <= last + SLACK)).all(1) & (depth_there > NEAR)
    grid = ((2 * pixels + 1) / size - 1).permute(0, 2, 3, 1)
    grid = torch.where(valid.unsqueeze(-1), grid, 0)
    warped = functional.grid_sample(images_next, grid, padding_mode="border", align_corners=False)
    return Warped(torch.where(valid.unsqueeze(1), warped, 0 if elsewhere is None else elsewhere), valid)


def _seen_at(depth: Tensor, pose: Tensor, intrinsics: Tensor) -> Projected:
    """`project(transform(back_project(depth)))` in one: of what a pixel sees elsewhere only the depth varies, `depth * K R K^-1 x + K t`."""
    b, h, w = depth.shape
    _require(pose, (b, 4, 4), "pose")
    _require(intrinsics, (b, 3, 3), "intrinsics")
    grid = pixel_grid(h, w, depth).flatten(1)
    homogeneous = torch.cat([grid, torch.ones_like(grid[:1])])
    turned = intrinsics @ pose[:, :3, :3] @ torch.linalg.inv(intrinsics) @ homogeneous
    image = (turned * depth.flatten(1).unsqueeze(1) + intrinsics @ pose[:, :3, 3:]).view(b, 3, h, w)
    return Projected(image[:, :2] / image[:, 2:].clamp_min(NEAR), image[:, 2])


def disparity_to_depth(disparity: Tensor) -> Tensor:
    """Depth in metres of a disparity from 0, which is `FARTHEST`, over 1, `NEAREST`, and on: linear in inverse depth.

    Source: Godard et al., ICCV 2019, "Digging Into Self-Supervised Monocular Depth Estimation", section 4.
    """
    return 1 / (1 / FARTHEST + (1 / NEAREST - 1 / FARTHEST) * disparity)


def depth_to_disparity(depth: Tensor) -> Tensor:
    """The inverse of `disparity_to_depth`."""
    return (1 / depth - 1 / FARTHEST) / (1 / NEAREST - 1 / FARTHEST)


def rigid_pose(rotation: Float[Tensor, "b 3"], translation: Float[Tensor, "b 3"]) -> Float[Tensor, "b 4 4"]:
    """The pose `[b, 4, 4]` that turns about an axis and then shifts; differentiable everywhere, also where nothing turns.

    Args:
        rotation: `[b, 3]`, the axis times the angle in radians (right-handed).
        translation: `[b, 3]`, metres.

    Source: Rodrigues' formula, as the exponential of the cross-product matrix.
    """
    twist = rotation.new_zeros(len(rotation), 4, 4)
    x, y, z = rotation.unbind(1)
    for (row, column), value in {(2, 1): x, (0, 2): y, (1, 0): z}.items():
        twist[:, row, column], twist[:, column, row] = value, -value
    turn = torch.linalg.matrix_exp(twist[:, :3, :3])
    pose = torch.eye(4, dtype=rotation.dtype, device=rotation.device).repeat(len(rotation), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = turn, translation
    return pose


def _require(tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ShapeError(f"expected {name} {list(shape)}, got {list(tensor.shape)}; try one {name} an image, batched")
