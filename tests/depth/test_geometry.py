"""Cameras, poses and warping."""

import math

import pytest
import torch

from robustseg.core.errors import ShapeError
from robustseg.depth.geometry import (
    _seen_at,
    back_project,
    invert_pose,
    pixel_grid,
    project,
    rigid_pose,
    transform,
    warp,
)

K = torch.tensor([[[50.0, 0, 15.5], [0, 50.0, 11.5], [0, 0, 1]]])


def shift(x=0.0, y=0.0, z=0.0):
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([x, y, z])
    return pose[None]


def test_convention_axes_x_right_y_down_z_forward():
    points = back_project(torch.full((1, 24, 32), 2.0), K)[0]
    assert (points[0, :, -1] > 0).all()
    assert (points[0, :, 0] < 0).all()
    assert (points[1, -1] > 0).all()
    assert (points[1, 0] < 0).all()
    assert (points[2] == 2).all()


def test_convention_pixel_centres_are_integers():
    grid = pixel_grid(2, 3, torch.zeros(1))
    assert grid[:, 0, 0].tolist() == [0, 0]
    assert grid[:, 1, 2].tolist() == [2, 1]
    images = torch.rand(1, 3, 24, 32)
    same = warp(images, torch.full((1, 24, 32), 3.0), torch.eye(4)[None], K)
    inner = same.valid[0, 1:-1, 1:-1]
    assert inner.all()
    assert torch.allclose(same.images[..., 1:-1, 1:-1], images[..., 1:-1, 1:-1], atol=1e-4)


def test_convention_pose_maps_this_camera_to_the_other():
    # The other camera stands one pixel's worth to the right: what it sees lies one pixel further left.
    depth = torch.full((1, 24, 32), 5.0)
    images = torch.rand(1, 3, 24, 32)
    warped = warp(images, depth, shift(x=-5.0 / 50), K)
    assert torch.allclose(warped.images[..., 2:-2, 2:], images[..., 2:-2, 1:-1], atol=1e-4)
    assert not warped.valid[0, :, 0].any()
    # Driving forward by one metre brings points one metre nearer.
    assert torch.allclose(transform(back_project(depth, K), shift(z=-1))[:, 2], depth - 1)


def test_project_inverts_back_project():
    depth = 1 + 9 * torch.rand(2, 24, 32, generator=torch.Generator().manual_seed(0))
    pixels, there = project(back_project(depth, K.expand(2, 3, 3)), K.expand(2, 3, 3))
    assert torch.allclose(there, depth)
    assert torch.allclose(pixels, pixel_grid(24, 32, depth).expand(2, -1, -1, -1), atol=1e-4)


def test_invert_pose():
    a = 0.3
    pose = shift(1, 2, 3)
    pose[0, :3, :3] = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    assert torch.allclose(pose @ invert_pose(pose), torch.eye(4)[None], atol=1e-6)


def test_a_rigid_pose_turns_right_handed_and_then_shifts():
    a, shifts = 0.3, torch.tensor([[1.0, 2, 3]])
    about_y = rigid_pose(torch.tensor([[0, a, 0]]), shifts)[0]
    turn = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    assert torch.allclose(about_y[:3, :3], turn, atol=1e-6)
    assert about_y[:, 3].tolist() == [1, 2, 3, 1]
    any_axis = torch.tensor([[0.4, -1.1, 0.7]])
    pose = rigid_pose(any_axis, torch.zeros(1, 3))[0, :3, :3]
    assert torch.allclose(pose @ pose.T, torch.eye(3), atol=1e-6)
    assert torch.allclose(pose @ any_axis[0], any_axis[0], atol=1e-6)  # the axis stays
    still = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: rigid_pose(r, r), still)  # also where nothing turns


def test_points_behind_the_other_camera_are_not_valid():
    warped = warp(torch.rand(1, 3, 24, 32), torch.ones(1, 24, 32), shift(z=-2), K)
    assert not warped.valid.any()
    assert (warped.images == 0).all()


def test_warp_has_gradients_of_depth_pose_and_images():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=generator).requires_grad_()
    depth = (2 + torch.rand(1, 5, 6, dtype=torch.float64, generator=generator)).requires_grad_()
    pose = shift(0.034, 0.027, -0.1).double().requires_grad_()
    k = torch.tensor([[[5.0, 0, 2.5], [0, 5, 2], [0, 0, 1]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda i, d, p: warp(i, d, p, k).images, (images, depth, pose))


def test_wrong_sizes_are_told():
    with pytest.raises(ShapeError, match="expected depth"):
        warp(torch.rand(1, 3, 4, 4), torch.ones(1, 4, 5), torch.eye(4)[None], K)
    with pytest.raises(ShapeError, match="expected intrinsics"):
        back_project(torch.ones(2, 4, 4), K)


def test_what_warp_samples_is_project_of_transform_of_back_project():
    """Values and gradients of the one product are those of the three steps."""
    generator = torch.Generator().manual_seed(0)
    depth = (1 + 9 * torch.rand(2, 6, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    turn, shift = (0.2 * torch.rand(2, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    intrinsics = (
        torch.tensor([[9.0, 0, 3.4], [0, 7.0, 2.6], [0, 0, 1]], dtype=torch.float64).repeat(2, 1, 1).requires_grad_()
    )
    pose = rigid_pose(turn, shift)
    whole = project(transform(back_project(depth, intrinsics), pose), intrinsics)
    weights = torch.rand(2, 2, 6, 8, generator=generator, dtype=torch.float64)
    given = (depth, turn, shift, intrinsics)
    found = _seen_at(depth, pose, intrinsics)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other)
    gradients = [
        torch.autograd.grad((seen.pixels * weights).sum(), given, retain_graph=True) for seen in (found, whole)
    ]
    (*found, of_intrinsics), (*whole, truth) = gradients
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(of_intrinsics[:, :2], truth[:, :2])  # their last row is a constant


def test_what_the_other_frame_does_not_show_is_shown_by_what_was_asked_for() -> None:
    images, depth = torch.rand((1, 3, 4, 6), generator=torch.Generator().manual_seed(0)), torch.full((1, 4, 6), 2.0)
    pose, intrinsics = torch.eye(4)[None].clone(), torch.eye(3)[None]
    pose[0, 0, 3] = 4.0  # two pixels to the side
    black = warp(images, depth, pose, intrinsics)
    shown = warp(images, depth, pose, intrinsics, elsewhere=1 - images)
    assert black.valid[0].sum() == 16
    assert torch.equal(shown.images, torch.where(black.valid[:, None], black.images, 1 - images))
    with pytest.raises(ShapeError, match="expected elsewhere"):
        warp(images, depth, pose, intrinsics, elsewhere=images[:, :1])


def test_depth_that_is_a_view_of_one_row_warps_like_its_copy() -> None:
    """A flat road or wall is often written with `expand`: no strides of its own."""
    images = torch.rand((1, 3, 4, 6), generator=torch.Generator().manual_seed(0))
    road = torch.tensor([9.0, 6.0, 3.0, 2.0]).view(1, 4, 1).expand(1, 4, 6)
    pose, intrinsics = torch.eye(4)[None].clone(), torch.eye(3)[None]
    pose[0, 0, 3] = 4.0
    one, other = (warp(images, depth, pose, intrinsics) for depth in (road, road.clone()))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.valid, other.valid)
    assert torch.equal(back_project(road, intrinsics), back_project(road.clone(), intrinsics))
