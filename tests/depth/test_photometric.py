"""View synthesis: true depth and motion are the best, what does not move teaches nothing, and flat depth is smooth."""

import math

import pytest
import torch
import torch.nn.functional as F

from robustseg.core.errors import ShapeError
from robustseg.core.types import Batch
from robustseg.datasets.streets import Streets
from robustseg.datasets.views import resize_intrinsics
from robustseg.depth.geometry import depth_to_disparity, disparity_to_depth, invert_pose, rigid_pose, warp
from robustseg.depth.photometric import SMALLER, SMOOTHNESS_WEIGHT, photometric_error, smoothness, view_synthesis_loss

SIZE = (64, 128)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def disparity_of(depth: torch.Tensor) -> torch.Tensor:
    return depth_to_disparity(depth).clamp_min(0)


@pytest.fixture(scope="module")
def street() -> Batch:
    data = Streets(scenes=2, frames=1, size=SIZE, neighbours=True)
    return Batch.of([data[0], data[1]])


def loss_of(street: Batch, **changed: torch.Tensor) -> torch.Tensor:
    known = {"depth": street.extras["depth"], **street.extras, **changed}
    return view_synthesis_loss(
        disparity_of(known["depth"]),
        street.images,
        known["previous"],
        known["next"],
        known["pose_previous"],
        known["pose_next"],
        known["intrinsics"],
        moving=known["moving"],
    ).loss


def turned(pose: torch.Tensor, rotation: tuple[float, ...] = (0.0, 0.0, 0.0), shift: float = 1.0) -> torch.Tensor:
    """A pose turned further by some angles (radians), its translation scaled."""
    pose = pose.clone()
    pose[:, :3, 3] *= shift
    turn = rigid_pose(torch.tensor([rotation]).expand(len(pose), 3), torch.zeros(len(pose), 3))
    return turn @ pose


DISTURBED = {
    "depth a tenth farther": lambda e: {"depth": e["depth"] * 1.1},
    "depth a tenth nearer": lambda e: {"depth": e["depth"] / 1.1},
    "depth the same everywhere": lambda e: {"depth": torch.full_like(e["depth"], 10.0)},
    "depth upside down": lambda e: {"depth": e["depth"].flip(1)},
    "turned right": lambda e: {"pose_next": turned(e["pose_next"], (0, 0.01, 0))},
    "turned up": lambda e: {"pose_previous": turned(e["pose_previous"], (0.01, 0, 0))},
    "rolled": lambda e: {"pose_next": turned(e["pose_next"], (0, 0, 0.02))},
    "too fast": lambda e: {"pose_next": turned(e["pose_next"], shift=1.3)},
    "too slow": lambda e: {"pose_next": turned(e["pose_next"], shift=0.7)},
    "poses exchanged": lambda e: {"pose_next": e["pose_previous"], "pose_previous": e["pose_next"]},
    "not moving": lambda e: {"pose_next": turned(e["pose_next"], shift=0), "pose_previous": turned(e["pose_previous"], shift=0)},
    "shorter focal length": lambda e: {"intrinsics": e["intrinsics"] * torch.tensor([[0.8], [0.8], [1.0]])},
}  # fmt: skip


@pytest.mark.parametrize("how", DISTURBED)
def test_true_geometry_has_the_smallest_loss(street: Batch, how: str) -> None:
    true, disturbed = loss_of(street), loss_of(street, **DISTURBED[how](street.extras))
    assert (true < disturbed).all(), f"{how}: {disturbed.tolist()} against {true.tolist()}"


def test_gradients_reach_disparity_and_poses_and_lead_back(street: Batch) -> None:
    """A step against the gradient of a disturbed pose lowers the loss."""
    vector = torch.zeros(2, 3, requires_grad=True)
    scale = torch.ones(2, 1, 1, requires_grad=True)
    pose = rigid_pose(vector, torch.zeros(2, 3)) @ turned(street.extras["pose_next"], (0, 0.004, 0))
    loss = loss_of(street, pose_next=pose, depth=street.extras["depth"] * scale).sum()
    angles, factor = torch.autograd.grad(loss, (vector, scale))
    assert angles.isfinite().all()
    assert factor.isfinite().all()
    assert (angles[:, 1] > 0).all()  # turned too far to the right: turn back


def test_identical_frames_teach_nothing() -> None:
    """K4: everything is masked, the loss is 0, and so is every gradient, that of smoothness too."""
    images = noise(2, 3, 16, 24)
    disparity = noise(2, 16, 24).requires_grad_()
    vector = (0.02 * noise(2, 3)).requires_grad_()
    pose, k = rigid_pose(vector, vector), camera(2)
    found = view_synthesis_loss(disparity, images, images, images, pose, pose, k, smaller=SMALLER)
    assert found.masked.all()
    assert found.masked_share.tolist() == [1, 1]
    assert found.loss.tolist() == [0, 0]
    assert all((g == 0).all() for g in torch.autograd.grad(found.loss.sum(), [disparity, vector]))


def test_of_a_batch_only_the_image_that_moves_pulls(street: Batch) -> None:
    disparity = disparity_of(street.extras["depth"]).requires_grad_()
    previous, following = street.extras["previous"].clone(), street.extras["next"].clone()
    previous[0] = following[0] = street.images[0]
    poses = street.extras["pose_previous"], street.extras["pose_next"]
    found = view_synthesis_loss(disparity, street.images, previous, following, *poses, street.extras["intrinsics"])
    (gradient,) = torch.autograd.grad(found.loss.sum(), disparity)
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).any()
    assert found.masked_share[0] == 1
    assert 0 < found.masked_share[1] < 1


def test_without_auto_masking_every_pixel_seen_pulls(street: Batch) -> None:
    """A motion all wrong is judged by all pixels that it leaves in view, not by those that happen to agree with it."""
    images, following, k = street.images, street.extras["next"], street.extras["intrinsics"]
    depth = torch.full_like(street.extras["depth"], 8.0)
    aside = rigid_pose(torch.zeros(2, 3), torch.tensor([[0.3, 0, 0]]).expand(2, 3))
    away = rigid_pose(torch.zeros(2, 3), torch.tensor([[0, 0, -99.0]]).expand(2, 3))  # sees nothing at all
    disparity = disparity_of(depth).requires_grad_()
    given = disparity, images, images, following, away, aside, k
    free, masked = view_synthesis_loss(*given, auto_mask=False), view_synthesis_loss(*given)
    seen = warp(following, depth, aside, k)
    shown = torch.where(seen.valid.unsqueeze(1), seen.images, images)
    error = torch.where(seen.valid, photometric_error(images, shown), 0).mean((1, 2))
    rough = SMOOTHNESS_WEIGHT * smoothness(disparity, images)
    assert torch.allclose(free.loss, error + rough, atol=1e-6)
    assert torch.equal(free.masked, masked.masked)
    (pull,), (less,) = (torch.autograd.grad(found.loss.sum(), disparity) for found in (free, masked))
    assert masked.masked.all()  # a neighbour that is the frame itself explains it best
    assert not less.any()
    assert (pull != 0).any(-1).any(-1).all()


def test_from_a_wrong_guess_the_way_ahead_is_found_without_auto_masking(street: Batch) -> None:
    """Gradient descent on the motion alone, all depths equal, from a small step aside."""
    depth = torch.full_like(street.extras["depth"], 8.0)
    shift = torch.tensor([0.04, 0.02, 0.01]).requires_grad_()
    optimizer = torch.optim.Adam([shift], 0.02)
    for _ in range(40):
        pose = rigid_pose(torch.zeros(2, 3), shift.expand(2, 3))
        poses = invert_pose(pose), pose
        frames = street.images, street.extras["previous"], street.extras["next"]
        found = view_synthesis_loss(disparity_of(depth), *frames, *poses, street.extras["intrinsics"], auto_mask=False)
        optimizer.zero_grad()
        found.loss.sum().backward()
        optimizer.step()
    true = street.extras["pose_next"][:, :3, 3].mean(0)
    assert float(torch.cosine_similarity(shift.detach(), true, dim=0)) > 0.9


def camera(count: int, focal: float = 20.0) -> torch.Tensor:
    return torch.tensor([[focal, 0, 11.5], [0, focal, 7.5], [0, 0, 1]]).expand(count, 3, 3)


def test_the_smaller_error_of_the_two_neighbours_counts() -> None:
    """A neighbour that shows something else altogether changes nothing where the other one explains the frame."""
    images, other = noise(1, 3, 16, 24), noise(1, 3, 16, 24, seed=1)
    shifted = images.roll(1, -1)  # the camera stands one pixel to the left: the world one to the right
    depth = 5.0
    pose = rigid_pose(torch.zeros(1, 3), torch.tensor([[depth / 20, 0, 0]]))
    disparity = disparity_of(torch.full((1, 16, 24), depth))
    still = torch.eye(4)[None]
    found = view_synthesis_loss(disparity, images, other, shifted, still, pose, camera(1))
    inside = ~found.masked[0]
    assert inside[:, :-2].all()
    assert float(found.loss) < 0.05
    swapped = view_synthesis_loss(disparity, images, shifted, other, pose, still, camera(1))
    assert torch.allclose(found.loss, swapped.loss)
    assert torch.equal(swapped.previous.images, found.following.images)


def test_moving_things_are_left_out(street: Batch) -> None:
    """What the frame shows inside the mask changes neither loss nor gradient."""
    moving = torch.zeros(2, *SIZE, dtype=torch.bool)
    moving[:, 20:40, 30:60] = True
    repainted = street.images.clone()
    repainted[..., 22:38, 32:58] = 0.5  # SSIM looks two pixels further
    neighbours = [street.extras[n] for n in ("previous", "next", "pose_previous", "pose_next", "intrinsics")]
    found = []
    for images in (street.images, repainted):
        flat = torch.full((2, *SIZE), 0.01, requires_grad=True)  # without edges, so that no smoothness comes in
        seen = view_synthesis_loss(flat, images, *neighbours, moving=moving)
        found.append((seen.loss, torch.autograd.grad(seen.loss.sum(), flat)[0], seen.masked))
    (loss, gradient, masked), again = found[0], found[1]
    assert torch.equal(loss, again[0])
    assert torch.equal(gradient, again[1])
    assert masked[moving].all()
    assert (gradient[:, 22:38, 32:58] == 0).all()
    everything = view_synthesis_loss(flat, street.images, *neighbours, moving=torch.ones_like(moving))
    assert everything.loss.tolist() == [0, 0]
    assert (torch.autograd.grad(everything.loss.sum(), flat)[0] == 0).all()


def test_in_small_images_it_is_the_loss_of_small_images(street: Batch) -> None:
    known = {**street.extras, "disparity": disparity_of(street.extras["depth"])}
    names = "previous", "next", "pose_previous", "pose_next", "intrinsics"
    given = [known["disparity"], street.images, *(known[n] for n in names)]
    moving = known["moving"]
    small = [F.avg_pool2d(x, 4) for x in given[:4]]
    k = torch.stack([resize_intrinsics(one, SIZE, (16, 32)) for one in known["intrinsics"]])
    less = F.max_pool2d(moving.float(), 4).bool()
    alone = view_synthesis_loss(*small, *given[4:6], k, moving=less)
    whole = view_synthesis_loss(*given, moving=moving)
    both = view_synthesis_loss(*given, moving=moving, smaller=(4,))
    assert torch.allclose(both.loss, (whole.loss + alone.loss) / 2)
    assert torch.equal(both.masked, whole.masked)
    assert torch.equal(
        view_synthesis_loss(*given, moving=moving, smaller=(16,)).loss, whole.loss
    )  # 4 pixels are too few


def test_what_is_far_from_its_place_is_found_in_small_images() -> None:
    """Gradient descent from rest on a shift of twelve pixels: at full size it stays where it is."""
    coarse = F.interpolate(noise(1, 3, 4, 8), scale_factor=16.0, mode="bilinear")
    images = (coarse + noise(1, 3, 64, 128, seed=1)) / 2
    other, disparity = images.roll(12, -1), disparity_of(torch.full((1, 64, 128), 5.0))
    ended = {}
    for smaller in ((), SMALLER):
        pixels = torch.zeros(()).requires_grad_()
        optimizer = torch.optim.Adam([pixels], 0.6)
        for _ in range(40):
            shift = torch.stack([5 / 20 * pixels, *torch.zeros(2)])[None]  # at 5 metres and a focal length of 20 pixels
            pose = rigid_pose(torch.zeros(1, 3), shift)
            given = disparity, images, other, other, pose, pose, camera(1)
            optimizer.zero_grad()
            view_synthesis_loss(*given, auto_mask=False, smaller=smaller).loss.sum().backward()
            optimizer.step()
        ended[smaller] = float(pixels.detach())
    assert ended[SMALLER] == pytest.approx(12, abs=1)
    assert ended[()] < 2


def test_a_point_outside_the_view_is_judged_by_the_other_neighbour() -> None:
    images = noise(1, 3, 16, 24)
    disparity = disparity_of(torch.full((1, 16, 24), 5.0))
    away = rigid_pose(torch.zeros(1, 3), torch.tensor([[1000.0, 0, 0]]))
    towards = rigid_pose(torch.zeros(1, 3), torch.tensor([[0.25, 0, 0]]))
    other = noise(1, 3, 16, 24, seed=1)
    found = view_synthesis_loss(disparity, images, other, images.roll(1, -1), away, towards, camera(1))
    assert not found.previous.valid.any()
    assert not found.masked[0, :, :-2].any()
    lost = view_synthesis_loss(disparity, images, other, other, away, away, camera(1))
    assert lost.masked.all()
    assert torch.allclose(lost.loss, photometric_error(images, other).mean())


@pytest.mark.parametrize("what", ["disparity", "pose", "image"])
def test_nan_stays_in_its_image_and_shows(street: Batch, what: str) -> None:
    depth, pose, previous = (street.extras[n].clone() for n in ("depth", "pose_next", "previous"))
    {"disparity": depth, "pose": pose, "image": previous}[what][1] = torch.nan
    loss = loss_of(street, depth=depth, pose_next=pose, previous=previous)
    assert loss.isnan().tolist() == [False, True]


def test_closed_forms_of_the_photometric_error() -> None:
    images = noise(2, 3, 8, 9)
    assert (photometric_error(images, images).abs() < 1e-6).all()
    black, white = torch.zeros(1, 3, 5, 5), torch.ones(1, 3, 5, 5)
    # flat images: SSIM is its brightness term alone, (2 a b + c) / (a^2 + b^2 + c) = c / (1 + c) with c = 1e-4
    expected = 0.85 * (1 - 1e-4 / (1 + 1e-4)) / 2 + 0.15
    assert torch.allclose(photometric_error(black, white), torch.full((1, 5, 5), expected))
    assert torch.allclose(photometric_error(images, images.flip(0)), photometric_error(images.flip(0), images))


def test_closed_forms_of_smoothness() -> None:
    gray = torch.full((1, 3, 4, 5), 0.5)
    assert float(smoothness(torch.full((1, 4, 5), 0.3), gray)) == 0
    ramp = torch.arange(1.0, 6.0).expand(1, 4, 5)  # mean 3, steps of 1 to the right, none down
    assert float(smoothness(ramp, gray)) == pytest.approx(1 / 3)
    assert float(smoothness(7 * ramp, gray)) == pytest.approx(1 / 3)
    step = torch.ones(1, 4, 5)
    step[..., 2:] = 2  # mean 1.6; one of four steps to the right
    edge = torch.zeros(1, 3, 4, 5)
    edge[..., 2:] = 1
    assert float(smoothness(step, gray)) == pytest.approx(1 / 1.6 / 4)
    assert float(smoothness(step, edge)) == pytest.approx(math.exp(-1) / 1.6 / 4)  # an edge of the image forgives it


def test_disparity_and_depth() -> None:
    assert disparity_to_depth(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([100, 0.1])
    depth = torch.tensor([0.1, 2.0, 30.0])
    assert torch.allclose(disparity_to_depth(disparity_of(depth)), depth, rtol=1e-4)


def test_other_sizes_are_told(street: Batch) -> None:
    given = [street.extras[n] for n in ("next", "pose_previous", "pose_next", "intrinsics")]
    with pytest.raises(ShapeError, match="expected a disparity an image and three images of one size"):
        view_synthesis_loss(street.extras["depth"], street.images, street.images[..., :-1], *given)
    with pytest.raises(ShapeError, match="expected a disparity an image and three images of one size"):
        view_synthesis_loss(street.extras["depth"][:1], street.images, street.images, *given)


def test_the_gradient_reaches_the_frame_itself_through_its_structure():
    other, still = noise(1, 3, 12, 16).double(), torch.eye(4).double()[None]
    image = (0.9 * other.roll(-1, 3) + 0.1 * noise(1, 3, 12, 16, seed=1)).requires_grad_()
    pose, intrinsics = still.clone(), torch.tensor([[[16.0, 0, 8], [0, 16, 6], [0, 0, 1]]]).double()
    pose[:, 0, 3] = 0.25  # at 4 metres and a focal length of 16 pixels: one pixel
    disparity = disparity_of(torch.full((1, 12, 16), 4.0).double())

    def loss(frame: torch.Tensor) -> torch.Tensor:
        return view_synthesis_loss(disparity, frame, other, other, pose, pose, intrinsics).loss.sum()

    inside = torch.zeros_like(image)
    inside[..., 3:-3, 3:-3] = 1  # away from the border, where pixels are masked and pull nothing
    step = 1e-7 * inside * (noise(1, 3, 12, 16, seed=2).double() - 0.5)
    (gradient,) = torch.autograd.grad(loss(image), image)
    moved = (loss(image + step) - loss(image - step)).detach() / 2
    assert (gradient * step).sum().item() == pytest.approx(moved.item(), rel=1e-3)
