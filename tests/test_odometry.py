"""Motion found by aligning frames with depth."""

import pytest
import torch

from robustseg import api
from robustseg.geometry import invert_pose, rigid_pose, warp
from robustseg.odometry import align
from robustseg.records import ShapeError
from robustseg.types import Batch


def scenes(size: str = "96x192") -> Batch:
    data = api.data(f"streets(scenes=4, frames=1, size='{size}', split='val', neighbours=True)")
    return Batch.of([data[i] for i in range(len(data))])


def apart(found: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Angles in radians, and distances in metres."""
    difference = invert_pose(truth) @ found
    half_sine = (difference[:, :3, :3] - difference[:, :3, :3].mT).norm(dim=(1, 2)) / 8**0.5
    return half_sine.asin(), difference[:, :3, 3].norm(dim=1)


@pytest.mark.parametrize("name", ["previous", "next"])
def test_finds_the_true_motion_from_rest(name: str) -> None:
    known = scenes()
    truth = known.extras[f"pose_{name}"]
    still = torch.eye(4).expand_as(truth)
    found = align(known.images, known.extras[name], known.extras["depth"], still, known.extras["intrinsics"])
    turn, shift = apart(found, truth)
    shift_before = apart(still, truth)[1]
    assert (shift_before > 0.4).all()  # metres
    quiet = known.extras["moving"].float().mean((1, 2)) < 0.1
    assert quiet.sum() == 3  # in the fourth it may follow the traffic
    assert (shift < 0.05 * shift_before)[quiet].all()
    assert (turn < 2e-3)[quiet].all()


def test_finds_a_turn_of_three_degrees_that_no_training_showed() -> None:
    known = scenes()
    turn = rigid_pose(torch.tensor([[0.0, 0.05, 0.0]]).expand(4, 3), torch.zeros(4, 3))
    truth, k = turn @ known.extras["pose_next"], known.extras["intrinsics"]
    beside = warp(known.extras["next"], torch.ones_like(known.images[:, 0]), invert_pose(turn), k)  # any depth does
    others = beside.images
    found = align(known.images, others, known.extras["depth"], torch.eye(4).expand_as(truth), k)
    assert (apart(found, truth)[0] < 8e-3).all()


def test_where_nothing_tells_of_motion_it_stays_where_it_starts() -> None:
    flat = torch.full((2, 3, 16, 24), 0.5)
    start = rigid_pose(torch.tensor([[0.0, 0.1, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])).expand(2, 4, 4)
    k = torch.tensor([[20.0, 0, 11.5], [0, 20.0, 7.5], [0, 0, 1]]).expand(2, 3, 3)
    assert torch.equal(align(flat, flat, torch.ones(2, 16, 24), start, k), start)
    noise = torch.rand((2, 2, 3, 16, 24), generator=torch.Generator().manual_seed(0))
    found = align(noise[0], noise[1], torch.ones(2, 16, 24), start, k)
    assert found.isfinite().all()


def test_gradients_do_not_flow_and_sizes_are_told() -> None:
    known = scenes("24x48")
    start = torch.eye(4).repeat(4, 1, 1).requires_grad_()
    k = known.extras["intrinsics"]
    assert not align(known.images, known.extras["next"], known.extras["depth"], start, k).requires_grad
    with pytest.raises(ShapeError, match="expected depth"):
        align(known.images, known.extras["next"], known.extras["depth"][:, 1:], start, k)
