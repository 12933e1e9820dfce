"""The gradient attacks: closed forms on a linear network, relations, and what papers and another library state."""

import itertools
import math
import warnings
import weakref

import pytest
import torch
from torch import nn

from robustseg.attacks import presets
from robustseg.attacks.apgd import apgd, sea
from robustseg.attacks.gradient import fgsm, fgsm_ll, ifgsm, ifgsm_ll, mifgsm, pgd, random_within, step_of, steps_of
from robustseg.attacks.pixelwise import cospgd, segpgd
from robustseg.attacks.steps import GOALS, round_to_8bit
from robustseg.core import registry
from robustseg.core.budget import Budget
from robustseg.core.errors import RobustsegError, ShapeError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.losses.pixelwise import cross_entropy, wrong_pixels
from robustseg.perturbations.noise import sign
from robustseg.testing import PixelNetwork, SmallNetwork


def _scene(count=2, size=(8, 10), classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 + 0.8 * torch.rand((count, 3, *size), generator=generator, dtype=torch.float64)
    return images, torch.randint(classes, (count, *size), generator=generator)


def _rng(count=2, seed=0):
    return ImageRng(seed, [f"image_{i}" for i in range(count)])


class _Passes:
    """Counts the passes through a network while it is open."""

    def __init__(self, network):
        self.network, self.count = network, 0

    def __enter__(self):
        self.hook = self.network.register_forward_hook(lambda *_: setattr(self, "count", self.count + 1))
        return self

    def __exit__(self, *_):
        self.hook.remove()


# Closed form: a linear network of two classes


def _smallest_flip(network, images, norm):
    """The least distance of each pixel to the plane where both classes are equally likely."""
    weight = network.convolution.weight[:, :, 0, 0].detach()
    gap = network(images).detach()
    across = weight[0] - weight[1]
    return (gap[:, 0] - gap[:, 1]).abs() / (across.abs().sum() if norm == "linf" else across.norm())


@pytest.mark.parametrize("attack", [fgsm, ifgsm, mifgsm, pgd])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_flip_a_pixel_just_above_the_smallest_distance_and_not_below(attack, norm):
    network = PixelNetwork(classes=2)
    images, _ = _scene(count=5, size=(1, 1))
    labels = network(images).argmax(1).detach()
    for i, distance in enumerate(_smallest_flip(network, images, norm).flatten().tolist()):
        more = {"step_size": distance / 8, "steps": 20} if attack is ifgsm else {}
        for factor, flipped in ((1.001, True), (0.999, False)):
            budget = Budget(norm, factor * distance)
            one = slice(i, i + 1)
            result = attack(network, images[one], labels[one], budget=budget, clip=False, rng=_rng(1), **more)
            assert bool((network(result).argmax(1) != labels[one]).item()) is flipped


def test_under_linf_every_pixel_is_attacked_by_itself():
    network = PixelNetwork(classes=2)
    images, _ = _scene(size=(16, 16))
    labels = network(images).argmax(1).detach()
    distance = _smallest_flip(network, images, "linf")
    eps = 1.0001 * float(distance.median())
    result = fgsm(network, images, labels, budget=Budget("linf", eps), clip=False, rng=_rng())
    assert torch.equal(network(result).argmax(1) != labels, distance < eps)


# What each goal means, in one step on the linear network


@pytest.mark.parametrize("goal", GOALS)
def test_one_step_by_the_formula(goal, pixel_network):
    images, labels = _scene()
    labels[0, :2] = IGNORE
    logits = pixel_network(images).detach()
    chosen = {"truth": labels, "prediction": logits.argmax(1)}.get(goal, logits.argmin(1))
    direction = 1 if goal in ("truth", "prediction") else -1
    # gradient of the cross-entropy of softmax(W x): W^T (p - onehot)
    weight = pixel_network.convolution.weight[:, :, 0, 0].detach()
    surplus = logits.softmax(1) - nn.functional.one_hot(chosen.where(labels != IGNORE, 0), 4).permute(0, 3, 1, 2)
    gradient = torch.einsum("kc,bkhw->bchw", weight, surplus) * (labels != IGNORE).unsqueeze(1)
    expected = images + direction * 4 / 255 * gradient.sign()
    torch.testing.assert_close(
        fgsm(pixel_network, images, labels, budget="linf:4/255", goal=goal, rng=_rng()), expected
    )


def test_targets_are_approached(small_network):
    images, labels = _scene()
    targets = torch.zeros_like(labels)
    result = pgd(small_network, images, labels, budget="linf:16/255", targets=targets, rng=_rng())
    before, after = (cross_entropy(small_network, x, targets) for x in (images, result))
    assert (after < before).all()


def test_least_likely_fixed_and_recomputed_differ(small_network):
    images, labels = _scene()
    fixed, now = (
        ifgsm_ll(small_network, images, labels, budget="linf:32/255", goal=g, rng=_rng())
        for g in ("least_likely", "least_likely_now")
    )
    assert not torch.equal(fixed, now)
    first = [
        ifgsm_ll(small_network, images, labels, budget="linf:32/255", steps=1, goal=g, rng=_rng()) for g in GOALS[2:]
    ]
    assert torch.equal(*first)


def test_an_unknown_goal_names_the_known(small_network):
    with pytest.raises(SpecError, match=r"got 'worst'; try truth, prediction"):
        fgsm(small_network, *_scene(), budget="linf:1/255", goal="worst", rng=_rng())


# Relations


def test_noise_is_weaker_than_fgsm_and_fgsm_than_pgd(small_network):
    images, labels = _scene(count=8, size=(16, 20))
    rng = _rng(8)
    noisy = sign(images, rms="8/255", rng=rng)
    single = fgsm(small_network, images, labels, budget="linf:8/255", rng=rng)
    many = pgd(small_network, images, labels, budget="linf:8/255", rng=rng)
    losses = [cross_entropy(small_network, x, labels).mean() for x in (images, noisy, single, many)]
    assert losses[1] < losses[2] < losses[3]
    assert losses[0] < losses[2]


@pytest.mark.parametrize("norm", ["linf:8/255", "l2:0.5"])
def test_the_best_iterate_is_at_least_the_last_and_more_restarts_never_hurt(small_network, norm):
    images, labels = _scene()
    eps = Budget.parse(norm).eps

    def loss(**how):
        result = pgd(small_network, images, labels, budget=norm, steps=2, step_size=eps / 5, rng=_rng(), **how)
        return cross_entropy(small_network, result, labels)

    assert (loss() >= loss(keep="last")).all()
    assert (loss(restarts=4) >= loss(restarts=2)).all()
    assert (loss(restarts=2) >= loss()).all()
    assert (loss(restarts=4) > loss()).any()
    assert (loss(restarts=2, keep="last") >= loss(keep="last")).all()


def test_more_steps_are_never_weaker_and_the_judge_decides_what_is_best(small_network):
    images, labels = _scene(count=4)

    def run(attack, steps, **how):
        how = {"budget": "linf:8/255", "step_size": "2/255", **how}
        return attack(small_network, images, labels, steps=steps, rng=_rng(4), **how)

    for attack in (pgd, mifgsm):
        for judge in (cross_entropy, wrong_pixels):
            values = [judge(small_network, run(attack, steps, judge=judge), labels) for steps in (1, 2, 4, 8)]
            assert all((more >= less).all() for less, more in itertools.pairwise(values))
    by_loss, by_pixels = (run(pgd, 8, judge=judge) for judge in (None, "wrong_pixels"))
    assert torch.equal(by_loss, run(pgd, 8, judge="cross_entropy"))
    assert (wrong_pixels(small_network, by_pixels, labels) >= wrong_pixels(small_network, by_loss, labels)).all()
    assert not torch.equal(by_loss, by_pixels)


def test_judging_costs_no_pass(small_network):
    images, labels = _scene()
    with _Passes(small_network) as seen:
        pgd(small_network, images, labels, budget="linf:4/255", steps=5, judge="wrong_pixels", rng=_rng())
    assert seen.count == 6


@pytest.mark.parametrize("judge", [None, "wrong_pixels"])
def test_logits_are_freed_before_the_network_goes_back(judge):
    """At 150 classes they are larger than all features, and the network's own way back needs room too."""

    class Watched(PixelNetwork):
        def forward(self, images):
            features = images * 2
            logits = self.convolution(features)
            if features.requires_grad:
                seen = weakref.ref(logits)
                features.register_hook(lambda gradient: alive.append(seen() is not None))
            return logits

    alive: list[bool] = []
    pgd(Watched(), *_scene(), budget="linf:4/255", steps=2, judge=judge, rng=_rng())
    assert alive == [False, False]


def test_momentum_by_hand(pixel_network):
    images, labels = _scene()
    current, momentum = images.clone(), torch.zeros_like(images)
    for _ in range(4):
        leaf = current.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(pixel_network, leaf, labels).sum(), leaf)
        momentum = 0.9 * momentum + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        current = (images + (current + 3 / 255 * momentum.sign() - images).clamp(-8 / 255, 8 / 255)).clamp(0, 1)
    how = {"budget": "linf:8/255", "steps": 4, "step_size": "3/255", "keep": "last", "rng": _rng()}
    torch.testing.assert_close(mifgsm(pixel_network, images, labels, decay=0.9, **how), current)
    none = mifgsm(pixel_network, images, labels, decay=0, **how)
    assert torch.equal(none, pgd(pixel_network, images, labels, random_start=False, **how))


def test_a_larger_budget_is_stronger(small_network):
    images, labels = _scene()
    losses = [
        cross_entropy(small_network, pgd(small_network, images, labels, budget=f"linf:{e}/255", rng=_rng()), labels)
        for e in (1, 2, 4, 8)
    ]
    assert all((b > a).all() for a, b in itertools.pairwise(losses))


@pytest.mark.parametrize("norm", ["linf:8/255", "l2:0.5"])
def test_the_default_step_reaches_the_budget(small_network, norm):
    images, labels = _scene()
    budget = Budget.parse(norm)
    for steps in (1, 2, 5, 20, 100):
        result = pgd(small_network, images, labels, budget=budget, steps=steps, keep="last", clip=False, rng=_rng())
        assert (budget.distance(result, images) > 0.99 * budget.eps).all()


def test_restarts_cost_no_pass_beyond_their_own(small_network):
    images, labels = _scene()
    for how, passes in [
        ({"keep": "last"}, 5),
        ({}, 6),
        ({"restarts": 3}, 18),
        ({"goal": "least_likely", "keep": "last"}, 6),
        ({"goal": "least_likely_now", "keep": "last"}, 5),
    ]:
        with _Passes(small_network) as seen:
            pgd(small_network, images, labels, budget="linf:4/255", steps=5, rng=_rng(), **how)
        assert seen.count == passes, how


# Papers and another library


@pytest.mark.parametrize(
    ("eps", "steps"), [(0.25, 1), (0.5, 1), (1, 2), (2, 3), (4, 5), (8, 10), (10, 13), (16, 20), (32, 36)]
)
def test_step_counts_of_the_papers(eps, steps, small_network):
    images, labels = _scene()
    assert steps_of(Budget.parse(f"linf:{eps}/255"), images) == steps
    assert steps_of(Budget("l2", eps / 255 * math.sqrt(240)), images) == steps
    with _Passes(small_network) as seen:
        ifgsm(small_network, images, labels, budget=f"linf:{eps}/255", rng=_rng())
    assert seen.count == steps


def test_presets_are_the_general_attacks_with_the_papers_settings(small_network):
    images, labels = _scene()

    def same(preset, general, **how):
        results = [
            f(small_network, images, labels, budget="linf:4/255", rng=_rng(), **h)
            for f, h in ((preset, {}), (general, how))
        ]
        assert torch.equal(*results), preset.__name__

    same(presets.arnab2018_fgsm, fgsm, goal="prediction")
    same(presets.arnab2018_fgsm_ll, fgsm, goal="least_likely")
    same(presets.arnab2018_ifgsm, ifgsm, goal="prediction", steps=5, step_size="1/255")
    same(presets.arnab2018_ifgsm_ll, ifgsm, goal="least_likely_now", steps=5, step_size="1/255")
    same(presets.klingner2020_fgsm, fgsm, goal="truth")
    same(presets.klingner2020_bim, ifgsm, goal="truth", steps=40, step_size=0.01)
    same(presets.klingner2020_pgd, pgd, goal="truth", steps=40, step_size=0.01, keep="last")
    same(presets.baer2020_llcm, ifgsm, goal="least_likely", steps=5, step_size="1/255")


def test_llcm_is_another_name_of_ifgsm_ll():
    first, second = (registry.build("perturbation", f"{n}(budget='linf:4/255')") for n in ("llcm", "ifgsm_ll"))
    assert first.function is second.function is ifgsm_ll


def test_iterative_fgsm_below_one_gray_level_is_fgsm(small_network):
    images, labels = _scene()
    single, iterated = (a(small_network, images, labels, budget="linf:0.5/255", rng=_rng()) for a in (fgsm, ifgsm))
    torch.testing.assert_close(single, iterated, rtol=0, atol=1e-12)


def test_pgd_equals_torchattacks(small_network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchattacks = pytest.importorskip("torchattacks")
    images, labels = _scene(count=3, size=(16, 20))
    theirs = torchattacks.PGD(small_network, eps=8 / 255, alpha=2 / 255, steps=10, random_start=False)(images, labels)
    ours = pgd(
        small_network,
        images,
        labels,
        budget="linf:8/255",
        step_size="2/255",
        steps=10,
        random_start=False,
        keep="last",
        rng=_rng(3),
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


# Clipping, rounding, regions


def test_without_clip_results_may_leave_the_range(small_network):
    images, labels = _scene()
    free = fgsm(small_network, images.round(), labels, budget="linf:8/255", clip=False, rng=_rng())
    held = fgsm(small_network, images.round(), labels, budget="linf:8/255", rng=_rng())
    assert free.min() < 0
    assert free.max() > 1
    torch.testing.assert_close(held, free.clamp(0, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("budget", ["linf:8/255", "linf:2.5/255", "l2:0.6"])
def test_rounded_images_are_8_bit_and_within_the_budget(budget, dtype):
    network = SmallNetwork().to(dtype)
    images, labels = _scene()
    images = ((images * 255).round() / 255).to(dtype)
    result = pgd(network, images, labels, budget=budget, round=True, rng=_rng())
    levels = result * 255
    assert (levels - levels.round()).abs().max() < 1e-3
    assert (Budget.parse(budget).distance(result, images) <= Budget.parse(budget).eps + 1e-6).all()
    assert not torch.equal(result, images)
    if budget == "linf:8/255":  # nothing of a whole number of levels is lost
        assert ((result - images).abs().amax((1, 2, 3)) * 255 - 8).abs().max() < 1e-3


def test_rounding_goes_towards_the_original():
    origin = torch.tensor([100.0, 100.0, 100.0, 100.4, 100.4, 0.0, 255.0, 100.0]) / 255
    images = torch.tensor([100.9, 102.9, 97.1, 100.8, 102.2, 0.7, 254.0, 100.0]) / 255
    expected = torch.tensor([100.0, 102.0, 98.0, 100.4, 102.0, 0.0, 254.0, 100.0]) / 255
    torch.testing.assert_close(
        round_to_8bit(images.view(1, 1, 1, 8).expand(1, 3, 1, 8), origin.view(1, 1, 1, 8).expand(1, 3, 1, 8))[0, 0, 0],
        expected,
    )


def test_only_the_region_changes(small_network):
    images, labels = _scene()
    region = torch.zeros(images.shape[-2:], dtype=torch.bool)
    region[2:5, 3:9] = True
    for norm in ("linf", "l2"):
        result = pgd(small_network, images, labels, budget=Budget(norm, 0.1, region), rng=_rng())
        changed = (result != images).any(1)
        assert changed[:, region].all()
        assert not changed[:, ~region].any()


@pytest.mark.parametrize("attack", [fgsm, ifgsm, mifgsm])
def test_a_region_gets_the_whole_l2_budget(small_network, attack):
    images, labels = _scene()
    region = torch.zeros(images.shape[-2:], dtype=torch.bool)
    region[2:5, 3:9] = True
    budget = Budget("l2", 0.1, region)
    result = attack(small_network, images, labels, budget=budget, rng=_rng())
    assert budget.distance(result, images).tolist() == pytest.approx([0.1, 0.1], rel=1e-3)


# What may go wrong


class _Spotty(PixelNetwork):
    """NaN for one image, as an overflow gives it."""

    def forward(self, images):
        logits = super().forward(images)
        return torch.where(images[:, :1, :1, :1] > 0.95, logits * torch.nan, logits)


@pytest.mark.parametrize("attack", [fgsm, fgsm_ll, ifgsm, ifgsm_ll, mifgsm, pgd])
@pytest.mark.parametrize("norm", ["linf:8/255", "l2:0.5"])
def test_nan_neither_spreads_nor_comes_back(attack, norm):
    images, labels = _scene()
    images[0, 0, 0, 0] = 1
    network = _Spotty()
    with torch.no_grad():
        assert network(images)[0].isnan().all()
    result = attack(network, images, labels, budget=norm, rng=_rng())
    assert result.isfinite().all()
    assert (Budget.parse(norm).distance(result, images) <= Budget.parse(norm).eps + 1e-9).all()
    alone = attack(network, images[1:], labels[1:], budget=norm, rng=_rng().select([1]))
    assert torch.equal(result[1:], alone)


def test_images_of_void_only_stay_in_the_budget(small_network):
    images, labels = _scene()
    labels[:] = IGNORE
    for attack in (fgsm, ifgsm_ll):
        assert torch.equal(attack(small_network, images, labels, budget="linf:8/255", rng=_rng()), images)
    result = pgd(small_network, images, labels, budget="linf:8/255", rng=_rng())
    assert (result - images).abs().max() <= 8 / 255 + 1e-12


class _Hard(PixelNetwork):
    """Decides hard; `soft()` is the linear network beneath."""

    def forward(self, images):
        return nn.functional.one_hot(super().forward(images).argmax(1), 4).permute(0, 3, 1, 2).to(images) * 9

    def soft(self):
        return PixelNetwork()


class _Deaf(PixelNetwork):
    def forward(self, images):
        return super().forward(images.detach())


class _Hardly(_Hard):
    def soft(self):
        return self


@pytest.mark.parametrize("network", [_Hardly(), _Deaf()])
def test_an_objective_without_gradient_is_refused(network):
    with pytest.raises(RobustsegError, match="objective with a gradient"):
        fgsm(network, *_scene(), budget="linf:1/255", rng=_rng())


def test_gradients_go_through_the_soft_network_and_the_hard_one_judges():
    network = _Hard()
    images, labels = _scene()
    result = pgd(network, images, labels, budget="linf:16/255", rng=_rng())
    assert (cross_entropy(network, result, labels) > cross_entropy(network, images, labels)).all()
    many = pgd(network, images, labels, budget="linf:16/255", rng=_rng(), restarts=2)
    assert (cross_entropy(network, many, labels) >= cross_entropy(network, result, labels)).all()


class _Jittering(PixelNetwork):
    """Draws a shift of each image anew at each draw."""

    def __init__(self, shift=None):
        super().__init__()
        self.shift = shift

    def draw(self, rng):
        return _Jittering(rng.normal((3, 1, 1), torch.zeros(len(rng), dtype=torch.float64)))

    def forward(self, images):
        return super().forward(images if self.shift is None else images + self.shift)


def test_networks_that_draw_are_drawn_from_the_streams():
    images, labels = _scene()
    network = _Jittering()
    first, again, other = (ifgsm(network, images, labels, budget="linf:4/255", rng=_rng(seed=s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_tiny_gradients_still_move_under_l2(pixel_network):
    images, labels = _scene()

    def faint(network, images, labels):
        return 1e-200 * cross_entropy(network, images, labels)

    weak, plain = (
        fgsm(pixel_network, images, labels, budget="l2:0.5", objective=o, rng=_rng()) for o in (faint, "cross_entropy")
    )
    torch.testing.assert_close(weak, plain)


def test_bad_arguments_are_refused(small_network):
    images, labels = _scene()
    for how, sentence in [
        ({"keep": "first"}, "keep='best' or 'last'"),
        ({"steps": 0}, "steps >= 1"),
        ({"draws": 0}, "draws >= 1"),
        ({"step_size": -0.1}, "a step_size above 0"),
        ({"restarts": 0}, "restarts >= 1"),
        ({"budget": "l0:3"}, "the norm"),
        ({"objective": "entropy"}, "an objective"),
    ]:
        with pytest.raises(SpecError, match=sentence):
            pgd(small_network, images, labels, **{"budget": "linf:1/255", "rng": _rng(), **how})
    with pytest.raises(ShapeError, match="one stream an image"):
        pgd(small_network, images, labels, budget="linf:1/255", rng=_rng(3))


def test_random_starts_fill_the_ball():
    images, _ = _scene(count=64, size=(1, 1))
    rng = _rng(64)
    square = (random_within(Budget("linf", 0.5), images, rng) - images).abs()
    assert square.max() <= 0.5
    assert square.mean() == pytest.approx(0.25, abs=0.03)
    length = (random_within(Budget("l2", 0.5), images, rng) - images).flatten(1).norm(dim=1)
    assert length.max() <= 0.5
    assert (length < 0.25).double().mean() == pytest.approx(1 / 8, abs=0.1)


def test_the_step_is_no_longer_than_the_ball_needs():
    budget = Budget("linf", 8 / 255)
    assert step_of(budget, 1) >= budget.eps
    assert step_of(budget, 1000) < budget.eps


class _Noisy(SmallNetwork):
    """Adds large noise of its own to each image, anew at each draw."""

    def __init__(self, noise=None):
        super().__init__()
        self.noise = noise

    def draw(self, rng):
        return _Noisy(0.5 * rng.normal((3, 8, 10), torch.zeros(len(rng), dtype=torch.float64)))

    def forward(self, images):
        return super().forward(images if self.noise is None else images + self.noise)


def test_the_mean_over_draws_beats_a_single_draw_on_a_randomised_network():
    """Expectation over transformation: what is climbed is the loss of the next draw, not the luck of this one."""
    images, labels = _scene(count=6)
    network, how = _Noisy(), {"budget": "linf:8/255", "steps": 10, "random_start": False, "rng": _rng(6)}
    losses = []
    for draws in (1, 10):
        result = pgd(network, images, labels, draws=draws, **how)
        fresh = ImageRng(9, _rng(6).ids)
        with torch.no_grad():
            seen = [cross_entropy(network.draw(fresh), result, labels) for _ in range(100)]
        losses.append(torch.stack(seen).mean(0))
    assert (losses[1] > losses[0]).all()


@pytest.mark.parametrize("attack", [pgd, segpgd, cospgd, apgd, sea])
def test_a_network_without_randomness_gives_the_same_whatever_the_draws(small_network, attack):
    images, labels = _scene()
    one, three = (
        attack(small_network, images, labels, budget="linf:8/255", steps=4, draws=d, rng=_rng()) for d in (1, 3)
    )
    torch.testing.assert_close(one, three, rtol=0, atol=1e-12)
