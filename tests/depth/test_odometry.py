"""Motion found by aligning frames with depth."""

import pytest
import torch

from robustseg import api
from robustseg.core.errors import ShapeError
from robustseg.core.types import Batch
from robustseg.depth.geometry import invert_pose, rigid_pose, warp
from robustseg.depth.odometry import TRACKING, _explains, align


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


def test_finds_how_a_camera_turned_from_where_it_had_not() -> None:
    known = scenes("128x256")  # large enough to begin at an eighth
    turn = rigid_pose(torch.tensor([[0.0, 0.05, 0.0]]).expand(4, 3), torch.zeros(4, 3))  # three degrees
    before, k = known.extras["pose_next"], known.extras["intrinsics"]
    others = warp(
        known.extras["next"], torch.ones_like(known.images[:, 0]), invert_pose(turn), k
    ).images  # any depth does
    found = align(known.images, others, known.extras["depth"], before, k)
    angles = apart(found, turn @ before)[0]
    assert (angles < 6e-3).all()  # of 0.05; a part is made up for by a shift to the side
    assert (angles < 2e-3).sum() >= 2


def test_a_depth_that_is_doubted_spoils_the_motion_less() -> None:
    """The inverse depth of a network at the start of its training: near things too far, far things too near."""
    known = scenes()
    truth, k = known.extras["pose_next"], known.extras["intrinsics"]
    inverse = 1 / known.extras["depth"]
    flatter = 1 / (0.5 * inverse + 0.5 * inverse.mean((1, 2), keepdim=True))
    start = rigid_pose(torch.tensor([[0.003, 0.006, 0.0]]).expand(4, 3), torch.zeros(4, 3)) @ truth
    found = {
        believed: align(known.images, known.extras["next"], flatter, start, k, steps=TRACKING, believed=believed)
        for believed in (True, False)
    }
    turned = {believed: apart(pose, truth)[0] for believed, pose in found.items()}
    aside = {believed: _directions_apart(pose, truth) for believed, pose in found.items()}
    assert (turned[False] < turned[True]).all()
    assert turned[False].median() < 0.7 * turned[True].median()
    assert (aside[False] < aside[True]).all()
    length = found[False][:, :3, 3].norm(dim=1) / truth[:, :3, 3].norm(dim=1)
    assert ((length > 0.7) & (length < 1.1)).all()  # shorter, as the docstring says


def _directions_apart(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return torch.cosine_similarity(found[:, :3, 3], truth[:, :3, 3]).clamp(-1, 1).acos()


def patterns() -> tuple[torch.Tensor, ...]:
    """A frame, the same seen three pixels to the side, its depth of one metre, and intrinsics."""
    noise = torch.rand((1, 3, 8, 12), generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(noise, (32, 51), mode="bicubic").clamp(0, 1)
    k = torch.tensor([[[40.0, 0, 23.5], [0, 40.0, 15.5], [0, 0, 1]]])
    return wide[..., :48], wide[..., 3:], torch.ones(1, 32, 48), k


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0])
def test_depth_that_is_no_number_does_not_count(value: float) -> None:
    image, other, depth, k = patterns()
    truth, still = torch.eye(4)[None].clone(), torch.eye(4)[None]
    truth[0, 0, 3] = -3 / 40
    assert (align(image, other, depth, still, k) - truth).abs().max() < 0.02
    depth[0, 3, 4] = depth[0, 20:24, 30:40] = value
    assert (align(image, other, depth, still, k) - truth).abs().max() < 0.02
    assert torch.equal(align(image, other, torch.full_like(depth, value), still, k), still)


def test_what_sees_nothing_explains_nothing() -> None:
    image, other, depth, k = patterns()
    start = rigid_pose(torch.tensor([[0.0, 0.3, 0.0]]), torch.zeros(1, 3))
    away = rigid_pose(torch.tensor([[0.0, 3.1, 0.0]]), torch.zeros(1, 3))
    assert not _explains(image, other, depth, away, start, k)
    assert not _explains(image, other, depth, start * torch.nan, start, k)
    assert _explains(
        image, other, depth, torch.tensor([[[1.0, 0, 0, -3 / 40], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]), start, k
    )
    assert torch.equal(align(image, other, depth, away, k), away)  # from where nothing is seen nothing is found


def test_where_nothing_tells_of_motion_it_stays_where_it_starts() -> None:
    flat = torch.full((2, 3, 16, 24), 0.5)
    start = rigid_pose(torch.tensor([[0.0, 0.1, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])).expand(2, 4, 4)
    k = torch.tensor([[20.0, 0, 11.5], [0, 20.0, 7.5], [0, 0, 1]]).expand(2, 3, 3)
    assert torch.equal(align(flat, flat, torch.ones(2, 16, 24), start, k), start)


def test_gradients_do_not_flow_and_sizes_are_told() -> None:
    known = scenes("24x48")
    start, k, depth = torch.eye(4).repeat(4, 1, 1).requires_grad_(), known.extras["intrinsics"], known.extras["depth"]
    assert not align(known.images, known.extras["next"], depth, start, k).requires_grad
    with pytest.raises(ShapeError, match="expected two images of one size"):
        align(known.images, known.extras["next"][..., 1:], depth, start, k)
    with pytest.raises(ShapeError, match="expected depth"):
        align(known.images, known.extras["next"], depth[:, 1:], start, k)
