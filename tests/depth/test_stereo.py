"""Depth searched about a known one: the right choice among many, and labels of any scale."""

import itertools
import math

import pytest
import torch

from robustseg import api
from robustseg.core.errors import ShapeError
from robustseg.core.types import Batch
from robustseg.depth import stereo
from robustseg.depth.stereo import Searched, label_loss, search_depth, semi_global


def street(scenes: int = 4) -> Batch:
    data = api.data(f"streets(scenes={scenes}, frames=1, size='96x192', split='val', neighbours=True, step=3)")
    return Batch.of([data[i] for i in range(len(data))])


def searched(known: Batch, depth: torch.Tensor) -> Searched:
    near = ("previous", "next")
    others, poses = [known.extras[name] for name in near], [known.extras[f"pose_{name}"] for name in near]
    return search_depth(known.images, others, depth, poses, known.extras["intrinsics"])


def error(depth: torch.Tensor, known: Batch, where: torch.Tensor) -> torch.Tensor:
    """The median of |log ratio| to the truth, of what stands still and is not the sky."""
    truth = known.extras["depth"]
    return (depth / truth).log().abs()[where & (truth < 80) & ~known.extras["moving"]].median()


def test_a_biased_depth_is_corrected_where_the_answer_is_clear() -> None:
    """Near things too far and far ones too near, as networks have it that learned by view synthesis alone."""
    known = street()
    inverse = 1 / known.extras["depth"]
    biased = 1 / (0.7 * inverse + 0.3 * inverse.mean((1, 2), keepdim=True))
    found = searched(known, biased)
    everywhere = torch.ones_like(found.clear)
    assert 0.5 < found.clear.float().mean() < 0.9
    assert error(biased, known, everywhere) > 0.12
    assert error(found.depth, known, found.clear) < 0.4 * error(biased, known, found.clear)
    assert error(found.depth, known, found.clear) < error(found.depth, known, ~found.clear)


def test_a_right_depth_stays() -> None:
    known = street()
    found = searched(known, known.extras["depth"])
    assert error(found.depth, known, found.clear) < 0.02  # a sixth of a step


def test_no_depth_goes_further_than_it_may() -> None:
    known = street()
    found = searched(known, 3 * known.extras["depth"])
    most = math.exp(stereo.STEP * stereo.STEPS)
    ratio = found.depth / (3 * known.extras["depth"])
    assert ratio.min() > 0.999 / most
    assert ratio.max() < 1.001 * most
    # and where it wants to go further it is not believed
    assert ratio.min() < 1.001 / most
    assert ratio[found.clear].min() > 1.001 / most
    assert found.clear.float().mean() < 0.5 * searched(known, known.extras["depth"]).clear.float().mean()


def test_only_frames_that_see_a_point_are_asked() -> None:
    """A frame from elsewhere, which sees nothing of this one, changes no depth; two such frames know nothing."""
    known = street(1)
    away = torch.eye(4)[None].clone()
    away[:, 0, 3] = 1e6
    k, depth, near = known.extras["intrinsics"], known.extras["depth"], known.extras["next"]
    alone = search_depth(known.images, [near], depth, [known.extras["pose_next"]], k)
    beside = search_depth(known.images, [near, near.flip(3)], depth, [known.extras["pose_next"], away], k)
    assert torch.equal(alone.depth, beside.depth)
    assert not search_depth(known.images, [near] * 2, depth, [away] * 2, k).clear.any()


def test_frames_without_poses_are_one_sentence() -> None:
    known = street(1)
    given = known.images, [known.images], known.extras["depth"], [], known.extras["intrinsics"]
    with pytest.raises(ShapeError, match="expected other frames and a pose for each, got 1 and 0; try"):
        search_depth(*given)


def test_of_a_camera_that_stands_still_nothing_is_clear() -> None:
    known = street(1)
    others, poses = [known.images] * 2, [known.extras[f"pose_{name}"] for name in ("previous", "next")]
    found = search_depth(known.images, others, known.extras["depth"], poses, known.extras["intrinsics"])
    assert not found.clear.any()


def test_a_path_is_the_best_of_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one row: the costs along it in both directions are those of the cheapest of all 4^5 ways through it, up to one number a pixel."""
    generator = torch.Generator().manual_seed(0)
    costs, grey = torch.rand((1, 4, 1, 5), generator=generator), torch.rand((1, 1, 1, 5), generator=generator) / 5
    total = semi_global(costs, grey)[0, :, 0]
    jump = stereo.JUMP * (-grey[0, 0, 0].diff().abs() / stereo.EDGE).exp()

    def price(way: tuple[int, ...]) -> torch.Tensor:
        changes = [
            (0.0, stereo.BEND)[abs(a - b)] if abs(a - b) < 2 else math.inf
            for a, b in zip(way[1:], way[:-1], strict=True)
        ]
        turns = [
            min(torch.tensor(change), at) if a != b else torch.tensor(0.0)
            for change, at, a, b in zip(changes, jump, way[1:], way[:-1], strict=True)
        ]
        return costs[0, list(way), 0, range(5)].sum() + sum(turns)

    ways = [(way, price(way)) for way in itertools.product(range(4), repeat=5)]
    best = torch.tensor([[min(p for way, p in ways if way[x] == c) for x in range(5)] for c in range(4)])
    # both directions count the pixel itself; up and down, where there is one row, is twice its cost
    expected = best + costs[0, :, 0] + 2 * costs[0, :, 0]
    torch.testing.assert_close(total - total[:1], expected - expected[:1])


def test_labels_are_of_any_scale() -> None:
    depth = torch.rand((2, 8, 8), generator=torch.Generator().manual_seed(1)) + 1
    clear = torch.ones(2, 8, 8, dtype=torch.bool)
    assert label_loss(3 * depth, Searched(depth, clear)).abs().max() < 1e-6
    half = depth.clone()
    half[:, :3] *= 2
    torch.testing.assert_close(label_loss(half, Searched(depth, clear)), torch.full((2,), 3 / 8 * math.log(2)))


def test_what_is_not_clear_pulls_nothing() -> None:
    depth = torch.full((2, 4, 4), 2.0, requires_grad=True)
    labels = torch.ones(2, 4, 4)
    labels[:, 0] = torch.nan
    labels[:, 1] = 5
    clear = torch.zeros(2, 4, 4, dtype=torch.bool)
    clear[0, 1:] = True
    lost = label_loss(depth, Searched(labels, clear))
    lost.sum().backward()
    assert lost[1] == 0
    pulled = depth.grad != 0
    assert pulled[0, 1].all()
    assert not pulled[0, 0].any()
    assert not pulled[1].any()
    assert depth.grad.isfinite().all()
