"""Joint transforms: image and labels stay together, draws belong to the image, what is off is off."""

from unittest import mock

import pytest
import torch

from robustseg import api
from robustseg.datasets.augment import Augmentation, turned
from robustseg.geometry import invert_pose, rigid_pose, warp
from robustseg.records import IGNORE
from robustseg.types import Batch, ImageRng, Sample

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


def test_turned_neighbours_are_those_of_cameras_that_turned():
    """With true depth and motion a turned neighbour is this frame only once its own turn is taken back."""
    angles = torch.tensor([[1.0, 6.0, -1.0], [-0.5, -4.0, 2.0]])
    known = Batch.of([api.data("streets(scenes=1, frames=1, size='64x128', split='val', neighbours=True)")[0]])
    frame, k, depth = known.images, known.extras["intrinsics"], known.extras["depth"]
    both = turned(torch.cat([known.extras["previous"], known.extras["next"]]), angles, k[0])
    back = invert_pose(rigid_pose(torch.deg2rad(angles), torch.zeros(2, 3)))
    still = known.extras["moving"].logical_not()
    for image, turn, name in zip(both.split(1), back.split(1), ("previous", "next"), strict=True):
        pose = known.extras[f"pose_{name}"]
        apart = []
        for guess in (turn @ pose, pose):
            warped = warp(image, depth, guess, k)
            seen = warped.valid & still
            apart.append(float((warped.images - frame).abs().mean(1)[seen].median()))
        assert apart[0] < 0.3 * apart[1]


def test_neighbours_turn_by_no_more_than_asked_and_nothing_else_changes():
    data = api.data("streets(scenes=1, frames=1, size='24x32', neighbours=True)")
    plain, other = (draw(Augmentation((24, 32), **PLAIN, turn=turn), of=data[0]) for turn in (0.0, 3.0))
    assert torch.equal(other.image, plain.image)
    assert torch.equal(other.extras["intrinsics"], plain.extras["intrinsics"])
    assert not torch.equal(other.extras["next"], plain.extras["next"])
    limits = []
    for seed in range(20):
        with mock.patch("robustseg.datasets.augment.turned", side_effect=lambda frames, *_: frames) as asked:
            draw(Augmentation((24, 32), **PLAIN, turn=2.0), seed, of=data[0])
        limits.append(asked.call_args.args[1].abs())
    highest = torch.cat(limits).amax(0)
    assert (highest <= torch.tensor([0.5, 2.0, 0.5])).all()
    assert (highest > 0.8 * torch.tensor([0.5, 2.0, 0.5])).all()
