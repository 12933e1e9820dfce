"""Views on a data set, and that batches hold every image once, in order, at one size."""

import itertools
from dataclasses import replace

import pytest
import torch

from robustseg.core.errors import SpecError
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.streets import Streets
from robustseg.datasets.views import Resized, Spread, batches, resize_image, resize_intrinsics, resize_labels
from robustseg.depth.geometry import warp
from robustseg.testing import check_dataset, gray_space


class Numbered(Dataset):
    """Images filled with their own index / 100, labels with index % 4; sizes as given."""

    def __init__(self, sizes):
        self.sizes, self.reads = sizes, []
        self.spec, self.label_space = "numbered", gray_space(4)
        self.ids = tuple(f"a_{i}" for i in range(len(sizes)))

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        self.reads.append(index)
        size = self.sizes[index]
        return Sample(torch.full((3, *size), index / 100), torch.full(size, index % 4), self.ids[index])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 11, 500])
def test_spread_takes_even_distances_and_no_image_twice(count):
    view = Spread(Numbered([(4, 6)] * 10), count)
    taken = [int(i[2:]) for i in view.ids]
    assert len(view) == len(taken) == min(count, 10)
    assert taken[0] == 0
    gaps = {b - a for a, b in itertools.pairwise(taken)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
    assert [view[i].id for i in range(len(view))] == list(view.ids)
    check_dataset(view)


def test_spread_of_nothing_is_refused():
    with pytest.raises(SpecError, match="expected at least 1 image, got 0; try --images 10"):
        Spread(Numbered([(4, 6)]), 0)


def test_resized_keeps_ids_spec_and_classes():
    data = Numbered([(4, 6), (8, 8)])
    view = Resized(data, (8, 8))
    check_dataset(view)
    assert (view.ids, view.spec, view.size) == (data.ids, "numbered", (8, 8))
    assert [tuple(view[i].image.shape) for i in range(2)] == [(3, 8, 8)] * 2
    with pytest.raises(SpecError, match="expected a size HxW of at least 8x8, got 0x8; try"):
        Resized(data, (0, 8))


def test_labels_keep_their_values_at_every_size():
    labels = torch.tensor([[0, 255], [3, 1]])
    for size in ((4, 4), (3, 5), (1, 1), (2, 2)):
        resized = resize_labels(labels, size)
        assert resized.dtype == torch.int64
        assert resized.shape == size
        assert set(resized.flatten().tolist()) <= {0, 255, 3, 1}
    assert resize_labels(labels, (4, 4)).tolist() == [[0, 0, 255, 255]] * 2 + [[3, 3, 1, 1]] * 2


def test_convention_images_and_labels_shrink_around_the_same_centres():
    # a step edge at half the width stays at half the width in both
    labels = (torch.arange(32) >= 16).long().expand(8, 32).contiguous()
    image = labels.float().expand(3, 8, 32).contiguous()
    for size in ((4, 16), (4, 8), (16, 64)):
        small = resize_image(image, size)
        assert ((small[0] > 0.5).long() == resize_labels(labels, size)).all()


def test_a_shrunk_image_keeps_its_mean():
    image = torch.rand((3, 64, 64), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(resize_image(image, (8, 8)).mean((1, 2)), image.mean((1, 2)), atol=0.01)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_batches_hold_every_image_once_in_order_and_of_one_size(size):
    data = Numbered([(4, 6), (4, 6), (4, 6), (2, 2), (4, 6), (4, 6)])
    found = list(batches(data, size))
    assert [i for b in found for i in b.ids] == list(data.ids)
    assert all(len(b.ids) <= size and len({tuple(i.shape) for i in b.images}) == 1 for b in found)
    assert data.reads == list(range(6))


def test_batches_from_a_start_are_the_rest_of_all_batches():
    data = Numbered([(4, 6)] * 7)
    every = [b.ids for b in batches(data, 3)]
    assert [b.ids for b in batches(data, 3, start=3)] == every[1:]
    assert list(batches(data, 3, start=7)) == []


def test_views_keep_size_and_files():
    data = Numbered([(4, 6)] * 3)
    data.files = ("classes.txt",)
    view = Spread(Resized(data, (8, 9)), 2)
    assert (view.size, view.files) == ((8, 9), ("classes.txt",))
    assert Spread(data, 2).size is None


class Street(Dataset):
    """One frame with everything that is known of it, at 48x96."""

    spec, label_space, ids = "street", gray_space(11), ("street_0",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return replace(Streets(scenes=1, frames=1, size=(48, 96), neighbours=True)[0], id=self.ids[0])


def test_resized_takes_neighbours_camera_and_maps_along():
    """A resized triplet still warps onto its frame, and the road is where it was."""
    whole, sample = Street()[0], Resized(Street(), (32, 80))[0]
    extras = sample.extras
    assert set(extras) == set(whole.extras)
    assert {n: tuple(extras[n].shape) for n in ("next", "depth", "moving")} == {
        "next": (3, 32, 80),
        "depth": (32, 80),
        "moving": (32, 80),
    }
    assert extras["moving"].dtype == torch.bool
    assert torch.equal(extras["pose_next"], whole.extras["pose_next"])
    assert set(extras["depth"].unique().tolist()) <= set(whole.extras["depth"].unique().tolist())
    batch = {name: value[None] for name, value in extras.items()}
    errors = {}
    for name, k in {"fitted": batch["intrinsics"], "as it was": whole.extras["intrinsics"][None]}.items():
        warped = warp(batch["next"], batch["depth"], batch["pose_next"], k)
        seen = warped.valid[0] & ~extras["moving"]
        errors[name] = float((warped.images[0] - sample.image).abs().mean(0)[seen].mean())
    unwarped = float((extras["next"] - sample.image).abs().mean())
    assert errors["fitted"] < 0.7 * unwarped
    assert errors["fitted"] < 0.7 * errors["as it was"]


def test_convention_intrinsics_keep_the_rays_through_borders():
    """The border of the image, half a pixel outside its first centre, is hit by the same ray at any size."""
    k = torch.tensor([[50.0, 0, 20], [0, 40, 9], [0, 0, 1]])
    small = resize_intrinsics(k, (24, 48), (12, 16))
    for matrix, (height, width) in ((k, (24, 48)), (small, (12, 16))):
        corners = torch.tensor([[-0.5, -0.5, 1], [width - 0.5, height - 0.5, 1]]).T
        rays = torch.linalg.inv(matrix) @ corners
        assert torch.allclose(rays, torch.tensor([[-20.5 / 50, 27.5 / 50], [-9.5 / 40, 14.5 / 40], [1, 1]]))
    assert torch.allclose(resize_intrinsics(small, (12, 16), (24, 48)), k)
