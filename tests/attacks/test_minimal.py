"""Minimum-norm attacks: the closed form on a linear network, and what a smallest change is judged by."""

import math

import pytest
import torch
from torch import nn

from robustseg.attacks.gradient import pgd
from robustseg.attacks.minimal import almaprox, penalty, penalty_slope, shrunk, smallest
from robustseg.core.budget import Budget
from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Network
from robustseg.losses.pixelwise import wrong_pixels
from robustseg.testing import PixelNetwork, gray_space


def _rng(count=3, seed=0):
    return ImageRng(seed, [f"image_{i}" for i in range(count)])


def _scene(count=3, size=(20, 20), low=0.4, high=0.6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand((count, 3, *size), generator=generator, dtype=torch.float64)


@torch.no_grad()
def _distances(network, images, labels):
    """The smallest L-inf change that flips each pixel of a linear network: margin over the L1 length of its gradient."""
    weight, logits = network.convolution.weight[:, :, 0, 0], network(images).permute(0, 2, 3, 1)
    margins = logits.gather(-1, labels.unsqueeze(-1)) - logits
    lengths = (weight[labels].unsqueeze(-2) - weight).abs().sum(-1)
    own = torch.nn.functional.one_hot(labels, logits.shape[-1]).bool()
    return (margins / lengths).masked_fill(own, math.inf).amin(-1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("share", [0.99, 0.5, 1.0])
def test_the_smallest_change_of_a_linear_network_is_its_closed_form(classes, share):
    network, images = PixelNetwork(classes=classes), _scene()
    labels = network(images).argmax(1)
    labels[:, :3] = IGNORE
    exact = _distances(network, images, labels.clamp_max(classes - 1))[:, 3:].flatten(1).sort(1).values
    exact = exact[:, math.ceil(share * exact.shape[1] - 1e-9) - 1]
    result = almaprox(network, images, labels, share=share, steps=150, rng=_rng())
    assert (wrong_pixels(network, result, labels) >= share).all()
    found = (result - images).flatten(1).abs().amax(1)
    assert (found >= exact - 1e-12).all()
    assert (found <= 1.02 * exact).all()


def test_where_the_range_of_images_is_in_the_way_others_do_more():
    """Half of the change is not possible: what is found is larger than the closed form without a range, and enough."""
    network, images = PixelNetwork(classes=2), _scene(low=0.0, high=1.0)
    labels = network(images).argmax(1)
    result = almaprox(network, images, labels, share=0.5, steps=150, rng=_rng())
    assert (wrong_pixels(network, result, labels) >= 0.5).all()
    assert result.min() >= 0
    assert result.max() <= 1


class _Curved(Network):
    """Two convolutions of equal classes with a curve between them, so that pixels share what moves them."""

    def __init__(self):
        super().__init__(gray_space(4))
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * (0.7 if p.ndim > 1 else 0))
        self.double()

    def forward(self, images):
        return self.layers(2 * images - 1)


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_it_is_smaller_than_the_smallest_budget_of_pgd(share):
    network, images = _Curved(), _scene(size=(8, 10), low=0.1, high=0.9)
    labels = network(images).argmax(1).detach()
    result = almaprox(network, images, labels, share=share, steps=150, rng=_rng())
    size = (result - images).flatten(1).abs().amax(1)
    assert (wrong_pixels(network, result, labels) >= share).all()
    for i in range(3):
        one = slice(i, i + 1)
        how = {"steps": 50, "objective": "masked_cross_entropy", "judge": "wrong_pixels", "rng": _rng(1)}
        pushed = pgd(network, images[one], labels[one], budget=Budget("linf", float(size[i])), **how)
        assert wrong_pixels(network, pushed, labels[one]) < share


def test_no_image_leaves_a_budget_and_those_that_need_more_lose_what_they_can():
    network, images = _Curved(), _scene(size=(8, 10), low=0.1, high=0.9)
    labels = network(images).argmax(1).detach()
    free = almaprox(network, images, labels, share=0.8, steps=100, rng=_rng())
    size = float((free - images).flatten(1).abs().amax(1).min())
    held = almaprox(network, images, labels, share=0.8, budget=Budget("linf", size / 2), steps=100, rng=_rng())
    assert (held - images).abs().max() <= size / 2 + 1e-12
    assert (wrong_pixels(network, held, labels) > 0.1).all()
    assert (wrong_pixels(network, held, labels) < 0.8).all()


def test_nothing_moves_where_nothing_must(small_network):
    images = _scene(size=(8, 10))
    labels = (small_network(images).argmax(1) + 1) % 4
    labels[2] = IGNORE
    assert torch.equal(almaprox(small_network, images, labels, steps=10, rng=_rng()), images)


def test_targets_are_reached():
    network, images = _Curved(), _scene(size=(8, 10), low=0.1, high=0.9)
    targets = torch.ones((3, 8, 10), dtype=torch.int64)
    result = almaprox(network, images, targets, targets=targets, share=0.7, steps=150, rng=_rng())
    assert (wrong_pixels(network, result, targets) <= 0.3).all()
    assert (wrong_pixels(network, images, targets) > 0.5).all()
    assert (result - images).abs().max() < 0.3


def test_the_slope_is_that_of_the_penalty():
    gap = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    multipliers = torch.linspace(0.1, 5, 61, dtype=torch.float64)
    (slope,) = torch.autograd.grad(penalty(gap, multipliers).sum(), gap)
    torch.testing.assert_close(slope, penalty_slope(gap.detach(), multipliers))
    assert (slope > 0).all()
    assert torch.equal(penalty(torch.zeros(3), torch.ones(3)), torch.zeros(3))


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0, 15.0])
def test_the_proximal_step_is_the_minimum(weight):
    generator = torch.Generator().manual_seed(0)
    origin, change = _scene(1, (4, 5), 0, 1), 0.5 * torch.randn((1, 3, 4, 5), generator=generator, dtype=torch.float64)
    metric = torch.rand(change.shape, generator=generator, dtype=torch.float64)

    def cost(d):
        return float(weight * d.abs().max() + (metric * (d - change) ** 2).sum() / 2)

    found = shrunk(change, origin, metric, torch.tensor([weight], dtype=torch.float64), torch.zeros(1))
    assert ((origin + found >= -1e-12) & (origin + found <= 1 + 1e-12)).all()
    inside = torch.minimum(torch.maximum(change, -origin), 1 - origin)
    levels = torch.linspace(0, float(change.abs().max()), 2000, dtype=torch.float64)
    assert cost(found) <= min(cost(inside.clamp(-level, level)) for level in levels.tolist()) + 1e-6
    if weight == 0:
        torch.testing.assert_close(found, inside)


def test_the_judge_prefers_any_change_that_is_enough_and_then_the_smaller(pixel_network):
    images = _scene(1, (1, 4))
    labels = pixel_network(images).argmax(1)
    judge = smallest(images, 0.5)
    wrong = [labels.clone() for _ in range(3)]
    for count, truth in enumerate(wrong):
        truth[0, 0, :count] = (truth[0, 0, :count] + 1) % 4
    none, quarter, half = (float(judge(pixel_network, images, truth)) for truth in wrong)
    larger = float(judge(pixel_network, images + 1e-9, wrong[2]))
    assert none < quarter < -1 <= larger < half == 0


def test_bad_arguments_are_refused(small_network):
    for how in ({"share": 0.0}, {"share": 1.1}, {"goal": "least_likely_now"}):
        with pytest.raises(SpecError, match="0 < share <= 1 and a goal of fixed labels"):
            almaprox(small_network, _scene(), torch.zeros((3, 20, 20), dtype=torch.int64), rng=_rng(), **how)
