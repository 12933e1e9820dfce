"""Synthesis against closed forms on linear networks; holes stay holes, and nothing else is touched."""

import logging
import math
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as functional

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Dataset, Network, Sample
from robustseg.losses.pixelwise import total_variation
from robustseg.synthesis.paint import (
    OPTIMISERS,
    SHIFT,
    ClassColours,
    Settings,
    SynthesisStep,
    _Moves,
    class_colours,
    coarsened,
    completed,
    generate,
    grown,
    inpaint,
    require_masks,
    shifted,
    widened,
)
from robustseg.testing import PixelNetwork, SmallNetwork, gray_space


def ids(count: int) -> ImageRng:
    return ImageRng(0, [f"image_{i}" for i in range(count)])


def scene(count: int = 2, size: tuple[int, int] = (12, 16)):
    """Images, masks with a hole of another size in each, and a target of all classes."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand((count, 3, *size), generator=generator, dtype=torch.float64)
    masks = torch.zeros((count, *size), dtype=torch.bool)
    for i in range(count):
        masks[i, 3 : 7 + i, 4:10] = True
    return images, masks, torch.randint(4, (count, *size), generator=generator)


def pull_of(network: PixelNetwork, label: int) -> torch.Tensor:
    """The direction of colour that raises the margin of a class over the other one, `[3]`."""
    weights = network.convolution.weight.detach()[..., 0, 0]
    return weights[label] - weights[1 - label]


def margin(network: PixelNetwork, colour: torch.Tensor, label: int) -> float:
    bias = network.convolution.bias.detach()
    return float(pull_of(network, label) @ colour + bias[label] - bias[1 - label])


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_optimum_in_a_ball_of_a_linear_network_is_found(optimiser):
    network = PixelNetwork(classes=2)
    images = torch.full((1, 3, 6, 8), 0.5, dtype=torch.float64)
    masks = torch.zeros((1, 6, 8), dtype=torch.bool)
    masks[:, 2:5, 3:7] = True
    pull = pull_of(network, 1)
    settings = Settings(optimiser=optimiser, steps=60, step=0.02, budget="l2:0.5", noise=0)
    done = inpaint(network, images, masks, torch.ones_like(masks, dtype=torch.int64), settings=settings, rng=ids(1))
    # twelve pixels share the ball; Adam makes the values of a steady gradient alike, so it ends along its signs
    best = 0.5 + 0.5 / math.sqrt(12) * functional.normalize(pull.sign() if optimiser == "adam" else pull, dim=0)
    expected = torch.where(masks.unsqueeze(1), best.view(1, 3, 1, 1), images)
    assert torch.allclose(done.best, expected, atol=1e-5)
    assert float(done.losses) == pytest.approx(math.log1p(math.exp(-margin(network, best, 1))), abs=1e-5)
    assert not done.diverged


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_without_a_ball_a_linear_network_drives_colours_to_a_corner(optimiser):
    network = PixelNetwork(classes=2)
    target = torch.tensor([[0, 1]]).repeat(5, 3).unsqueeze(0)
    settings = Settings(optimiser=optimiser, steps=100, step=0.1, noise=0.05, starts=2)
    done = generate(network, target, settings=settings, rng=ids(1))
    corners = torch.stack([(pull_of(network, label) > 0).double() for label in (0, 1)])
    expected = corners[target].permute(0, 3, 1, 2)
    assert done.images.shape == (2, 1, 3, 5, 6)
    assert torch.allclose(done.images[0], expected, atol=1e-6)
    assert torch.allclose(done.images[1], expected, atol=1e-6)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_holes_are_filled_and_nothing_else_is_touched(optimiser):
    network = SmallNetwork()
    images, masks, target = scene()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kept = images.clone()
    settings = Settings(optimiser=optimiser, steps=6, step=0.05, shifts=2, coarse=2, smoothness=0.3, starts=2)
    done = inpaint(network.train(), images, masks, target, settings=settings, rng=ids(2))
    outside = ~masks.unsqueeze(1).expand_as(images)
    for start in done.images:
        assert torch.equal(start[outside], images[outside])
        assert not torch.equal(start[~outside], images[~outside])
    assert 0 <= float(done.images.min()) <= float(done.images.max()) <= 1
    assert not torch.equal(done.images[0], done.images[1])
    assert torch.equal(images, kept)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_the_ball_lies_around_the_start():
    images, masks, target = scene()
    start = inpaint(SmallNetwork(), images, masks, target, settings=Settings(steps=1, step=0), rng=ids(2)).best
    settings = Settings(steps=8, step=0.2, budget="l2:0.7")
    done = inpaint(SmallNetwork(), images, masks, target, settings=settings, rng=ids(2)).best
    distance = (done - start).flatten(1).norm(dim=1)
    assert (distance <= 0.7 + 1e-9).all()
    assert (distance > 0.5).all()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_an_image_does_not_depend_on_its_batch_and_comes_out_again(optimiser):
    images, masks, target = scene(3)
    settings = Settings(optimiser=optimiser, steps=5, step=0.05, shifts=2, coarse=1)
    whole = inpaint(SmallNetwork(), images, masks, target, settings=settings, rng=ids(3))
    again = inpaint(SmallNetwork(), images, masks, target, settings=settings, rng=ids(3))
    assert torch.equal(whole.images, again.images)
    alone = inpaint(SmallNetwork(), images[2:], masks[2:], target[2:], settings=settings, rng=ImageRng(0, ["image_2"]))
    assert torch.allclose(whole.images[0, 2:], alone.best, atol=1e-12)


def test_each_step_is_told_and_the_last_one_is_the_result():
    images, masks, target = scene()
    steps: list[SynthesisStep] = []
    settings = Settings(steps=7, starts=2)
    done = inpaint(SmallNetwork(), images, masks, target, settings=settings, rng=ids(2), on_step=steps.append)
    assert [(s.done, s.total) for s in steps] == [(i, 7) for i in range(8)]
    assert torch.equal(steps[-1].images, done.images.flatten(0, 1))
    assert (steps[-1].losses <= torch.stack([s.losses for s in steps]).amin(0) + 1e-12).all()
    assert torch.equal(done.best[0], done.images[done.losses[:, 0].argmin(), 0])


class Fragile(Network):
    """Linear, and no number at all for images that are bright on average."""

    def __init__(self, bound: float):
        super().__init__(gray_space(), "fragile")
        self.inside, self.bound = PixelNetwork(), bound

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `[b, k, h, w]`."""
        bright = images.mean((1, 2, 3), keepdim=True) > self.bound
        return torch.where(bright, torch.full_like(images[:, :1], math.nan), self.inside(images))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(("bound", "step"), [(0.55, 0.1), (0.0, 0.1), (2.0, 1.0)])
def test_what_diverges_gives_the_best_image_so_far_and_says_so(optimiser, bound, step, caplog):
    network = Fragile(bound)
    weights = network.inside.convolution.weight.detach()[..., 0, 0]
    label = int(weights.sum(1).argmax())
    target = torch.full((1, 6, 8), label)
    settings = Settings(optimiser=optimiser, steps=30, step=step, noise=0.01)
    with caplog.at_level(logging.WARNING):
        done = generate(network, target, settings=settings, rng=ids(1))
    assert torch.isfinite(done.images).all()
    assert 0 <= float(done.images.min()) <= float(done.images.max()) <= 1
    if bound < 2:
        assert done.diverged.all()
        assert "diverged; the best image so far is kept" in caplog.text
    assert torch.isfinite(done.losses).all() == (bound > 0)  # it never was a number where every image is too bright


class Bowl(Network):
    """The first class is likeliest at mid-grey."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `[b, 2, h, w]`."""
        first = -100 * (images.mean(1, keepdim=True) - 0.5).square()
        return torch.cat([first, torch.zeros_like(first)], 1)


def test_a_loss_that_ends_above_its_start_is_said_and_the_best_kept():
    target = torch.zeros((1, 4, 4), dtype=torch.int64)
    settings = Settings(steps=2, step=0.4, noise=0.05)
    done = generate(Bowl(gray_space(2)), target, settings=settings, rng=ids(1))
    start = generate(Bowl(gray_space(2)), target, settings=Settings(steps=1, step=0, noise=0.05), rng=ids(1))
    assert done.diverged.all()
    assert not start.diverged.any()
    assert torch.equal(done.images, start.images)


def test_what_cannot_be_synthesised_is_said_in_one_sentence():
    images, masks, target = scene()
    network = SmallNetwork()

    def refused(match, **changed):
        given = {"images": images, "masks": masks, "target": target, **changed}
        with pytest.raises(RobustsegError, match=match):
            inpaint(network, given["images"], given["masks"], given["target"], rng=ids(2))

    for wrong in (masks[..., :-1], masks.long()):
        with pytest.raises(ShapeError, match=r"expected bool masks .*try masks at the size of the images"):
            require_masks(images, wrong)
    refused("expected a pixel in every mask, got an empty one", masks=masks & (torch.arange(2) > 0).view(2, 1, 1))
    refused("expected a labelled pixel to climb toward, got void only", target=torch.full_like(target, IGNORE))
    refused("expected classes 0 to 3 of small.*got 4; try a, b, c, d", target=torch.where(masks, 4, target))
    refused("expected pixels to complete the label map from", masks=torch.ones_like(masks), target=None)
    with pytest.raises(RobustsegError, match="got void only"):
        generate(network, torch.full_like(target, IGNORE), rng=ids(2))
    inpaint(network, images, masks, torch.where(masks, target, 99), settings=Settings(steps=1), rng=ids(2))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"optimiser": "lbfgs"}, "expected an optimiser, got 'lbfgs'; try pgd, descent, adam"),
        ({"steps": 0}, "expected steps of at least 1 and finite, got 0; try 200"),
        ({"step": math.nan}, "expected step of at least 0"),
        ({"step": 1e30}, "expected step and noise of at most 1"),
        ({"budget": "l2:0"}, "expected an L2 budget above 0"),
        ({"noise": math.inf}, "expected noise of at least 0"),
        ({"budget": "linf:8/255"}, "expected an L2 budget above 0, got 'linf:8/255'"),
    ],
)
def test_settings_outside_their_range_are_refused(changed, match):
    with pytest.raises(RobustsegError, match=match):
        Settings(**changed)


def test_values_grow_inward_and_what_is_known_stays():
    values = torch.arange(2 * 4 * 5 * 7, dtype=torch.float64).view(2, 4, 5, 7)
    known = torch.ones((2, 5, 7), dtype=torch.bool)
    known[0, 1:4, 2:5] = False
    full = grown(values, known)
    assert torch.equal(full[1], values[1])
    assert torch.equal(full[0, :, known[0]], values[0, :, known[0]])
    assert torch.allclose(full[0, :, 2, 3], values[0, :, 2, 3])  # the middle of a plane
    nothing = torch.zeros((1, 5, 7), dtype=torch.bool)
    assert (grown(values[:1], nothing) == 0.5).all()


def test_the_networks_own_map_is_carried_into_the_hole_without_what_is_removed():
    network = PixelNetwork()
    images = torch.rand((1, 3, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = network.predict(images)
    first, second, third = seen.unique()[:3].tolist()
    colour = {k: images[0, :, seen[0] == k][:, 0] for k in (first, second, third)}
    picture = colour[first].view(3, 1, 1).expand(3, 10, 12).clone()
    picture[:, 5:] = colour[second].view(3, 1, 1)
    picture[:, 4:6, 3:9] = colour[third].view(3, 1, 1)
    masks = torch.zeros((1, 10, 12), dtype=torch.bool)
    masks[:, 3:7, 4:8] = True  # the third class sticks out on both sides
    full = completed(network, picture.unsqueeze(0), masks, without=(third,))[0]
    assert (full[:5] == first).all()
    assert (full[6:] == second).all()
    assert third in completed(network, picture.unsqueeze(0), masks)[0]


def test_masks_widen_by_the_pixels_that_are_named():
    masks = torch.zeros((1, 9, 9), dtype=torch.bool)
    masks[0, 4, 4] = True
    assert int(widened(masks, 2).sum()) == 25
    assert torch.equal(widened(masks, 0), masks)


class Coloured(Dataset):
    """A data set whose classes have Gaussian colours that are known."""

    spec, label_space, ids = "coloured", gray_space(3), ("a", "b")
    mean = torch.tensor([[0.2, 0.5, 0.7], [0.6, 0.4, 0.3], [0.5, 0.5, 0.5]])
    root: ClassVar = 0.05 * torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [0, -0.5, 1]])

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        labels = torch.randint(2, (80, 100), generator=generator)
        draws = torch.randn((80, 100, 3), generator=generator)
        image = self.mean[labels] + draws @ self.root.T
        labels[:3] = IGNORE
        return Sample(image.permute(2, 0, 1).contiguous(), labels, self.ids[index])


def test_colours_of_the_classes_are_found_and_drawn():
    data = Coloured()
    colours = class_colours(data)
    assert torch.allclose(colours.mean[:2], data.mean[:2], atol=2e-3)
    assert torch.allclose(colours.mean[2], torch.full((3,), 0.5))  # never seen
    covariance = colours.root[0] @ colours.root[0].T
    assert torch.allclose(covariance, data.root @ data.root.T, atol=3e-4)
    assert (colours.root[2] == 0).all()
    flat = ClassColours(data.mean, torch.zeros(3, 3, 3))
    labels = torch.tensor([[[0, 1, IGNORE]]])
    drawn = flat.draw(labels, ids(1), like=torch.zeros(1))
    assert torch.allclose(drawn[0, :, 0].T, torch.stack([data.mean[0], data.mean[1], torch.full((3,), 0.5)]))
    start = colours.draw(torch.zeros((1, 64, 64), dtype=torch.int64), ids(1), like=torch.zeros(1))
    assert torch.allclose(start.mean((0, 2, 3)), data.mean[0], atol=0.03)
    assert 0.02 < float(start.std(dim=(2, 3)).mean()) < 0.08


def test_labels_move_with_the_images_and_what_enters_is_void():
    labels = torch.randint(4, (5, 12, 14), generator=torch.Generator().manual_seed(1))
    images = (labels / 10).unsqueeze(1).repeat(1, 3, 1, 1)
    moved, follows = shifted(images, labels, ids(5))
    valid = follows != IGNORE
    assert torch.equal(moved[:, 0][valid], (follows / 10)[valid])
    assert ((~valid).flatten(1).sum(1) <= 26 * SHIFT).all()
    assert (
        len({tuple(f.flatten().tolist()) == tuple(m.flatten().tolist()) for f, m in zip(follows, labels, strict=True)})
        <= 2
    )
    assert not torch.equal(follows, labels)


def test_gradients_are_coarse_first():
    settings = Settings(steps=60, coarse=3)
    moves = _Moves(settings, torch.ones((1, 4, 4), dtype=torch.bool), lambda step: None)
    cells = []
    for done in range(60):
        moves.done = done
        cells.append(moves._cell())
    assert cells == [8] * 10 + [4] * 10 + [2] * 10 + [1] * 30
    gradient = torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(coarsened(gradient, 1), gradient)
    means = gradient.mean((2, 3), keepdim=True).expand_as(gradient)
    assert torch.allclose(coarsened(gradient, 8), means)
    assert torch.allclose(coarsened(gradient, 64), means)


def test_smoothness_lowers_the_total_variation():
    images, masks, target = scene()
    found = [
        inpaint(SmallNetwork(), images, masks, target, settings=Settings(steps=40, smoothness=s), rng=ids(2)).best
        for s in (0.0, 10.0)
    ]
    rough, smooth = (total_variation(image, masks) for image in found)
    assert (smooth < 0.9 * rough).all()
