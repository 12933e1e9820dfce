"""The gradient-free search: closed form on a linear network, relations, and that it needs no gradient."""

import itertools

import pytest
import torch
from torch import nn

from robustseg.attacks.gradient import fgsm
from robustseg.attacks.search import Grid, search
from robustseg.core.budget import Budget
from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.losses.pixelwise import cross_entropy, pixel_jensen_shannon, wrong_pixels
from robustseg.perturbations.noise import sign
from robustseg.testing import PixelNetwork


def _scene(count=2, size=(12, 16), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 + 0.8 * torch.rand((count, 3, *size), generator=generator, dtype=torch.float64)
    return images, torch.randint(4, (count, *size), generator=generator)


def _rng(count=2, seed=0):
    return ImageRng(seed, [f"image_{i}" for i in range(count)])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_single_pixel_flips_above_the_smallest_distance_and_not_below(norm):
    network = PixelNetwork(classes=2)
    images, _ = _scene(count=1, size=(1, 1))
    labels = network(images).argmax(1).detach()
    logits, weight = network(images).detach(), network.convolution.weight[:, :, 0, 0].detach()
    across = weight[0] - weight[1]
    distance = float((logits[0, 0] - logits[0, 1]).abs() / (across.abs().sum() if norm == "linf" else across.norm()))
    for factor, flipped in ((1.001 if norm == "linf" else 1.3, True), (0.999, False)):
        budget = Budget(norm, factor * distance)
        result = search(network, images, labels, budget=budget, queries=100, clip=False, rng=_rng(1))
        assert bool((network(result).argmax(1) != labels).item()) is flipped


@pytest.mark.parametrize("objective", ["jensen_shannon", "cross_entropy", "wrong_pixels"])
def test_more_queries_are_never_weaker_and_at_last_stronger_than_noise(small_network, objective):
    images, labels = _scene(count=4)
    labels[:, :2] = IGNORE
    how = {"budget": "linf:16/255", "objective": objective, "rng": _rng(4)}
    results = [images, *(search(small_network, images, labels, queries=q, **how) for q in (2, 8, 40))]
    judge = {
        "jensen_shannon": lambda n, x, y: pixel_jensen_shannon(n(x), y).flatten(1).sum(1),
        "cross_entropy": cross_entropy,
        "wrong_pixels": wrong_pixels,
    }[objective]
    values = [judge(small_network, x, labels) for x in results]
    assert all((more >= less).all() for less, more in itertools.pairwise(values))
    noisy = judge(small_network, sign(images, rms="16/255", rng=_rng(4)), labels)
    assert (values[-1] > noisy).all()


class _Hard(PixelNetwork):
    """Labels without a gradient: all that gradient attacks can be fooled by."""

    def forward(self, images):
        return 9 * nn.functional.one_hot(super().forward(images).argmax(1), 4).permute(0, 3, 1, 2).to(images)


def test_it_breaks_what_gives_no_gradient():
    network = _Hard()
    images, _ = _scene()
    labels = network(images).argmax(1)
    with pytest.raises(RobustsegError, match="objective with a gradient"):
        fgsm(network, images, labels, budget="linf:32/255", rng=_rng())
    result = search(network, images, labels, budget="linf:32/255", queries=60, rng=_rng())
    noisy = sign(images, rms="32/255", rng=_rng())
    assert (wrong_pixels(network, result, labels) > wrong_pixels(network, noisy, labels) + 0.05).all()


@pytest.mark.parametrize("goal", ["prediction", "least_likely"])
def test_goals_go_their_way(small_network, goal):
    images, labels = _scene()
    logits = small_network(images).detach()
    aimed, sense = (logits.argmax(1), 1) if goal == "prediction" else (logits.argmin(1), -1)
    result = search(small_network, images, labels, budget="linf:32/255", queries=30, goal=goal, rng=_rng())
    before, after = (sense * pixel_jensen_shannon(small_network(x), aimed).sum() for x in (images, result))
    assert after > before


def test_targets_are_approached(small_network):
    images, labels = _scene()
    targets = torch.zeros_like(labels)
    how = {"budget": "linf:32/255", "queries": 30, "targets": targets, "rng": _rng()}
    result = search(small_network, images, labels, **how)
    before, after = (pixel_jensen_shannon(small_network(x), targets).sum() for x in (images, result))
    assert after < before


def test_any_batch_size_gives_the_same_images(small_network):
    images, labels = _scene(count=8)
    rng = _rng(8)
    whole = search(small_network, images, labels, budget="linf:8/255", queries=15, rng=_rng(8))
    for size in (1, 3):
        parts = [slice(i, i + size) for i in range(0, 8, size)]
        rng = _rng(8)
        results = [
            search(
                small_network,
                images[part],
                labels[part],
                budget="linf:8/255",
                queries=15,
                rng=rng.select(range(8)[part]),
            )
            for part in parts
        ]
        assert torch.equal(torch.cat(results), whole)


@pytest.mark.parametrize("pair", [1, 2, 5, 40, 4000])
@pytest.mark.parametrize("size", [(12, 16), (1, 1), (5, 90)])
def test_tiles_cover_the_image_and_their_means_are_those_of_their_pixels(pair, size):
    grid = Grid.of(pair, *size)
    names = torch.arange(grid.tiles[0] * grid.tiles[1], dtype=torch.float64).view(1, 1, *grid.tiles)
    spread = grid.spread(names)
    assert spread.shape == (1, 1, *size)
    values = torch.rand((1, *size), dtype=torch.float64)
    means = grid.means(values).flatten()
    for name in names.flatten().tolist():
        expected = values[spread[:, 0] == name].sum() / grid.side**2
        assert float(means[int(name)]) == pytest.approx(float(expected))


def test_bad_arguments_are_refused(small_network):
    for how in ({"queries": -1}, {"goal": "least_likely_now"}):
        with pytest.raises(SpecError, match="goal of fixed labels"):
            search(small_network, *_scene(), budget="linf:1/255", rng=_rng(), **how)
