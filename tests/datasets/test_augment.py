"""Joint transforms: image and labels stay together, draws belong to the image, what is off is off."""

import pytest
import torch

from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Sample
from robustseg.datasets.augment import Augmentation

PLAIN = {"scale": (1.0, 1.0), "flip": False, "colour": 0.0}


def sample(size=(24, 32)):
    """Labels 0..3 in large blocks; the red value is the label / 4, so that one shows the other."""
    labels = torch.zeros(size, dtype=torch.int64)
    labels[:, size[1] // 2 :] += 1
    labels[size[0] // 2 :] += 2
    image = torch.stack([labels / 4, torch.full(size, 0.5), torch.full(size, 0.25)])
    return Sample(image, labels, "a_0")


def draw(augment, seed=0, of=None):
    return augment(of or sample(), ImageRng(seed, ["a_0"]))


def test_nothing_drawn_is_the_image_itself():
    result = draw(Augmentation((24, 32), **PLAIN))
    assert torch.allclose(result.image, sample().image, atol=1e-6)
    assert torch.equal(result.labels, sample().labels)
    assert result.id == "a_0"


@pytest.mark.parametrize("seed", range(12))
def test_image_and_labels_move_together(seed):
    result = draw(Augmentation((20, 20), colour=0.0), seed)
    assert result.image.shape == (3, 20, 20)
    assert result.labels.shape == (20, 20)
    shown = (result.image[0] * 4).round().long()
    labelled = result.labels != IGNORE
    # blocks' borders blur by the scale; inside they agree
    assert float((shown == result.labels)[labelled].double().mean()) > 0.85


def test_one_stream_gives_one_draw_and_seeds_differ():
    augment = Augmentation((20, 20))
    first, again = draw(augment, 1), draw(augment, 1)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.labels, again.labels)
    assert len({draw(augment, seed).image.sum().item() for seed in range(6)}) == 6


def test_half_of_the_images_are_mirrored():
    augment = Augmentation((24, 32), **{**PLAIN, "flip": True})
    mirrored = 0
    for seed in range(60):
        result = draw(augment, seed)
        straight = torch.equal(result.labels, sample().labels)
        assert straight or torch.equal(result.labels, sample().labels.flip(-1))
        mirrored += not straight
    assert 15 <= mirrored <= 45


def test_outside_the_image_is_void_and_the_border_repeats():
    result = draw(Augmentation((30, 40), **PLAIN))
    assert (result.labels[24:] == IGNORE).all()
    assert (result.labels[:, 32:] == IGNORE).all()
    assert torch.equal(result.labels[:24, :32], sample().labels)
    assert torch.allclose(result.image[:, 24:, :32], sample().image[:, -1:].expand(3, 6, 32), atol=1e-6)


def test_colours_change_within_the_range_and_labels_do_not():
    for seed in range(8):
        result = draw(Augmentation((24, 32), **{**PLAIN, "colour": 0.5}), seed)
        assert result.image.min() >= 0
        assert result.image.max() <= 1
        assert torch.equal(result.labels, sample().labels)
        assert not torch.allclose(result.image, sample().image, atol=1e-3)


def test_the_sample_given_is_left_as_it_was():
    given = sample()
    draw(Augmentation((24, 32)), 3, given)
    assert torch.equal(given.image, sample().image)
    assert torch.equal(given.labels, sample().labels)


@pytest.mark.parametrize("seed", range(6))
def test_crops_lie_anywhere_in_the_image(seed):
    result = draw(Augmentation((4, 4), **PLAIN), seed)
    assert (result.labels != IGNORE).all()


def test_crops_reach_every_corner():
    found = set()
    for seed in range(200):
        found |= set(draw(Augmentation((4, 4), **PLAIN), seed).labels.unique().tolist())
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(8))
def test_neighbours_and_intrinsics_move_with_the_image(seed):
    """Red and green say where a pixel was; a point seen by the new intrinsics lies where it was seen by the old ones."""
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    image = torch.stack([columns / 64, rows / 64, torch.zeros(48, 64)])
    old = torch.tensor([[60.0, 0, 30.0], [0, 55.0, 21.0], [0, 0, 1]])
    extras = {"previous": image / 2, "next": image / 4, "intrinsics": old, "depth": torch.ones(48, 64)}
    drawn = draw(
        Augmentation((24, 32), scale=(0.8, 1.5), colour=0.0),
        seed,
        Sample(image, sample((48, 64)).labels, "a_0", extras),
    )
    assert set(drawn.extras) == {"previous", "next", "intrinsics"}
    assert torch.allclose(drawn.extras["previous"], drawn.image / 2, atol=1e-6)
    assert torch.allclose(drawn.extras["next"], drawn.image / 4, atol=1e-6)
    new, mirrored = drawn.extras["intrinsics"], bool(drawn.image[0, 0, 0] > drawn.image[0, 0, -1])
    for column, row in ((8, 6), (20, 15)):
        ray = torch.linalg.inv(new) @ torch.tensor([column, row, 1.0])
        ray[0] *= -1 if mirrored else 1
        was = drawn.image[:2, row, column] * 64
        assert torch.allclose((old @ ray)[:2], was, atol=0.08), (mirrored, old @ ray, was)


def test_each_frame_changes_colour_as_the_image_does():
    extras = {"previous": sample().image, "intrinsics": torch.eye(3)}
    drawn = draw(
        Augmentation((24, 32), **{**PLAIN, "colour": 0.5}), of=Sample(sample().image, sample().labels, "a_0", extras)
    )
    assert torch.equal(drawn.extras["previous"], drawn.image)
    assert not torch.allclose(drawn.image, sample().image, atol=1e-2)
