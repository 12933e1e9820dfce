"""What trains depth and motion without labels: each frame painted with the pixels of its neighbours must look like itself.

With the right depth and the right motion of the camera, `geometry.warp` of the frame before or after is this frame. So the
difference between the two is a loss, `photometric_error`, and needs nothing but video. Three things spoil it: what is
hidden in one neighbour (the smaller error of the two neighbours counts), what does not move relative to the camera and
would be taken for infinitely far (a pixel counts only where warping beats leaving the neighbour as it is: auto-masking), and
surfaces without texture, which any depth explains (`smoothness`). And its gradient sees no further than the next pixel: what is warped
to a wrong place is led to the right one only from there. So a training begins with small images besides, where all is near.

Source: Godard, Mac Aodha, Firman, Brostow, ICCV 2019, "Digging Into Self-Supervised Monocular Depth Estimation".
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from robustseg.core.errors import ShapeError
from robustseg.core.types import Depth, Images, Intrinsics, Mask, PerImage, Pose
from robustseg.depth.geometry import Warped, disparity_to_depth, shrink_intrinsics, warp
from robustseg.losses.similarity import Likeness

SSIM_WEIGHT = 0.85
"""The weight of structure in the photometric error; the rest is that of the difference of colours."""

SSIM_WINDOW = 5
"""Pixels along the sides of the windows in which structure is compared."""

SMOOTHNESS_WEIGHT = 1e-3
"""The weight of smoothness."""

SMALLER = (2, 4, 8, 16)
"""At which n-ths of their size the beginning of a training compares the images besides."""
SMALLEST = 8
"""Pixels that the shorter side of an image must have to be compared at less than its size."""


class ViewSynthesis(NamedTuple):
    """What a depth map and two poses explain of a frame.

    Args:
        loss: `[b]`, one number an image; training lowers their mean.
        masked: bool `[b, h, w]`, the pixels that auto-masking leaves out at full size, as warping does not beat the
            neighbour as it is, and those of what moves.
        previous, following: the neighbours warped onto this frame at full size, without a graph; this frame itself where they see
            nothing.
    """

    loss: PerImage
    masked: Mask
    previous: Warped
    following: Warped

    @property
    def masked_share(self) -> PerImage:
        """The share of masked pixels, `[b]`; 1 where there is nothing to learn from, as with a camera that stands still."""
        return self.masked.to(self.loss).mean((1, 2))


class Views(NamedTuple):
    """A frame and its neighbours at some size.

    Args:
        images: `[b, 3, h, w]` in [0, 1]. neighbours: the frames before and after it.
        intrinsics: `[b, 3, 3]`, pixels. counted: bool `[b, h, w]`, the pixels that are looked at.
    """

    images: Images
    neighbours: tuple[Images, Images]
    intrinsics: Intrinsics
    counted: Mask

    @classmethod
    def of(
        cls, images: Images, previous: Images, following: Images, intrinsics: Intrinsics, moving: Mask | None
    ) -> "Views":
        """Views in which all pixels count but those that move; None: none move."""
        counted = torch.ones_like(images[:, 0], dtype=torch.bool) if moving is None else ~moving
        return cls(images, (previous, following), intrinsics, counted)

    def smaller(self, part: int) -> "Views":
        """The same at an n-th of the size; a pixel counts if all pixels that it is the mean of do."""
        images, previous, following = (F.avg_pool2d(x, part) for x in (self.images, *self.neighbours))
        counted = F.avg_pool2d(self.counted.to(images).unsqueeze(1), part).squeeze(1) == 1
        return Views(images, (previous, following), shrink_intrinsics(self.intrinsics, part), counted)


def view_synthesis_loss(
    disparity: Float[Tensor, "_ _ _"],
    images: Images,
    previous: Float[Tensor, "b 3 _ _"],
    following: Float[Tensor, "b 3 _ _"],
    pose_previous: Pose,
    pose_next: Pose,
    intrinsics: Intrinsics,
    *,
    moving: Mask | None = None,
    auto_mask: bool = True,
    smaller: Sequence[int] = (),
) -> ViewSynthesis:
    """How badly the neighbours, warped by depth and pose, paint this frame, and how rough the depth is.

    At each pixel the smallest of four errors counts: of both neighbours warped, and of both as they are, where no
    gradient flows (auto-masking). A pixel whose point leaves a neighbour's view is compared with the other alone. An
    image with no pixel left to learn from pulls nothing at all, so with auto-masking a camera that stands still trains nothing.

    Args:
        disparity: `[b, h', w']` (see `geometry.disparity_to_depth`), brought to the size of the images.
        images, previous, following: `[b, 3, h, w]` in [0, 1], the frame and those before and after it.
        pose_previous, pose_next: `[b, 4, 4]`, this camera to that of the neighbour.
        intrinsics: `[b, 3, 3]`, pixels.
        moving: bool `[b, h, w]`, pixels of things that move by themselves, which are left out; None: none are known.
        auto_mask: False: every pixel with a point in a neighbour's view pulls, whether or not the motion explains it so far.
        smaller: at which n-ths of their size images are compared besides, such as `SMALLER`; the loss is the mean. Those at which the
            shorter side would have less than `SMALLEST` pixels are left out.

    Returns:
        The loss of each image and what to look at.

    Raises:
        ShapeError: sizes that do not fit each other.

    Source: Godard et al., ICCV 2019, equations 1 to 5; factors of Klingner et al., ECCV 2020.
    Differs: with `smaller`, one disparity is judged by images of several sizes, with the same weight of smoothness in all, where they
        judge four disparities by the full image, the coarser the less smooth (`LOG.md`, "One disparity, images of four sizes");
        equal errors count as masked, where they add noise to break ties; points outside a neighbour's view are left out, where they
        repeat its border; an image of which nothing is left has no smoothness term either.
    """
    if previous.shape != images.shape or following.shape != images.shape or len(disparity) != len(images):
        raise ShapeError(
            f"expected a disparity an image and three images of one size, got {list(disparity.shape)}, {list(images.shape)}, "
            f"{list(previous.shape)} and {list(following.shape)}; try frames of one video"
        )
    views, poses = Views.of(images, previous, following, intrinsics, moving), (pose_previous, pose_next)
    whole = F.interpolate(disparity.unsqueeze(1), images.shape[-2:], mode="bilinear", align_corners=False)
    found = _at_size(whole.squeeze(1), views, poses, auto_mask)
    losses = [found.loss]
    for part in smaller:
        if min(images.shape[-2:]) // part >= SMALLEST:
            small = _at_size(F.avg_pool2d(whole, part).squeeze(1), views.smaller(part), poses, auto_mask)
            losses.append(small.loss)
    return found._replace(loss=torch.stack(losses).mean(0))


def _at_size(disparity: Tensor, views: Views, poses: tuple[Pose, Pose], auto_mask: bool) -> ViewSynthesis:
    error_to = errors_from(views.images)
    with torch.no_grad():
        unmoved = torch.minimum(*(error_to(neighbour) for neighbour in views.neighbours))
    error, warps, depth = torch.full_like(unmoved, torch.inf), [], disparity_to_depth(disparity)
    for neighbour, pose in zip(views.neighbours, poses, strict=True):
        # what is not seen there shows this frame, so that windows across the border are judged by the seen part
        warped = warp(neighbour, depth, pose, views.intrinsics, elsewhere=views.images)
        error = torch.minimum(error, torch.where(warped.valid, error_to(warped.images), torch.inf))
        warps.append(Warped(warped.images.detach(), warped.valid))
    masked = (unmoved <= error) | ~views.counted
    still = masked if auto_mask else error.isinf() | ~views.counted
    smallest = torch.where(still, unmoved, error)
    loss = torch.where(views.counted, smallest, 0).sum((1, 2)) / views.counted.sum((1, 2)).clamp_min(1)
    # products with 0 keep NaN: a disparity or pose that is no number must not pass as one that leaves the view
    rough = smoothness(disparity, views.images) * ~still.flatten(1).all(1)
    lost = 0 * sum(pose.sum((1, 2)) for pose in poses)
    return ViewSynthesis(loss + SMOOTHNESS_WEIGHT * rough + lost, masked, *warps)


def photometric_error(first: Images, second: Images) -> Tensor:
    """How different two images look at each pixel, `[b, h, w]`, 0 to 1: `0.85 (1 - SSIM) / 2 + 0.15 mean |a - b|`.

    Source: Godard et al., CVPR 2017, equation 4.
    Differs: SSIM in windows of 5x5, where they have 3x3: of the depths that a plane sweep tries, the true one stands out more (`LOG.md`).
    """
    return errors_from(first)(second)


def errors_from(first: Float[Tensor, "b c h w"]) -> Callable[[Tensor], Tensor]:
    """`photometric_error` of one image, of any number of colours, to any number of others."""
    likeness = Likeness(first, window=torch.full((SSIM_WINDOW,), 1 / SSIM_WINDOW))

    def error(second: Tensor) -> Tensor:
        structure = ((1 - likeness(second)) / 2).clamp(0, 1)
        return SSIM_WEIGHT * structure + (1 - SSIM_WEIGHT) * (first - second).abs().mean(1)

    return error


def smoothness(disparity: Depth, images: Float[Tensor, "b 3 _ _"]) -> PerImage:
    """How much the disparity varies where the image does not, `[b]`: `mean |dx d| exp(-|dx I|) + mean |dy d| exp(-|dy I|)`.

    d is the disparity over its mean in the image, so that shrinking it does not pay; colours are averaged.

    Args:
        disparity: `[b, h, w]`, positive. images: `[b, 3, h', w']`, brought to its size.

    Source: Godard et al., ICCV 2019, equation 3.
    """
    images = F.interpolate(images, disparity.shape[-2:], mode="area")
    relative = disparity / disparity.mean((1, 2), keepdim=True).clamp_min(1e-7)
    total = disparity.new_zeros(len(disparity))
    for axis in (1, 2):
        edges = images.diff(dim=axis + 1).abs().mean(1)
        total = total + (relative.diff(dim=axis).abs() * (-edges).exp()).mean((1, 2))
    return total
