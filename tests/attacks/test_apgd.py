"""APGD and SEA: the step rule by hand, closed form on a linear network, and an ensemble no weaker than its members."""

from functools import partial

import pytest
import torch

from robustseg.attacks.apgd import Adaptive, apgd, checkpoints, sea
from robustseg.attacks.gradient import pgd
from robustseg.attacks.pixelwise import segpgd
from robustseg.attacks.steps import Here
from robustseg.core.budget import Budget
from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.losses.pixelwise import balanced, cross_entropy, wrong_pixels
from robustseg.testing import PixelNetwork

MEMBERS = ("jensen_shannon", "masked_cross_entropy", "balanced_masked_cross_entropy")


def _scene(count=3, size=(8, 10), classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 + 0.8 * torch.rand((count, 3, *size), generator=generator, dtype=torch.float64)
    return images, torch.randint(classes, (count, *size), generator=generator)


def _rng(count=3, seed=0):
    return ImageRng(seed, [f"image_{i}" for i in range(count)])


def test_checkpoints_of_the_paper():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10) == (3, 5, 6, 7, 8, 9, 10, 10)
    assert checkpoints(0) == (0,) * 8


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [apgd, sea])
def test_a_pixel_flips_just_above_the_smallest_distance_and_not_below(attack, norm):
    network = PixelNetwork(classes=2)
    images, _ = _scene(count=3, size=(1, 1))
    labels = network(images).argmax(1).detach()
    logits, weight = network(images).detach(), network.convolution.weight[:, :, 0, 0].detach()
    across = weight[0] - weight[1]
    distances = (logits[:, 0] - logits[:, 1]).abs() / (across.abs().sum() if norm == "linf" else across.norm())
    for i, distance in enumerate(distances.flatten().tolist()):
        for factor, flipped in ((1.01, True), (0.999, False)):
            one, budget = slice(i, i + 1), Budget(norm, factor * distance)
            result = attack(network, images[one], labels[one], budget=budget, steps=20, clip=False, rng=_rng(1))
            assert bool((network(result).argmax(1) != labels[one]).item()) is flipped


def _walk(values, steps, points=None):
    """The moves of two pixels in a wide budget along a gradient of 1, told these objective values step by step."""
    move, images, seen = Adaptive(steps), torch.zeros(1, 3, 1, 1, dtype=torch.float64), []
    for value in values:
        here = Here(images, torch.tensor([value]), torch.ones_like(images), Budget("linf", 1.0), lambda x: x)
        images = move(here)
        seen.append(float(images[0, 0, 0, 0]))
    return seen


def test_steps_by_hand():
    # steps=10 looks back at 3, 5, 6, ...: the first step is 2 eps, then 0.75 of 2 eps and 0.25 of the last move
    up = _walk([0.0, 1.0, 2.0, 3.0], 10)
    assert up[:3] == pytest.approx([2, 2 + 1.5 + 0.5, 4 + 1.5 + 0.5])
    assert up[3] == pytest.approx(8)  # three of three steps rose: nothing changes
    # one of three rose: back to the best (at 2, where 1.0 was seen) with half the step; momentum is towards the best
    down = _walk([0.0, 1.0, 0.5, 0.25], 10)
    assert down[3] == pytest.approx(2 + 0.75 * 1 + 0.25 * (2 - down[1]))


def test_the_step_halves_where_the_best_stands_still():
    move = Adaptive(10)
    images = torch.zeros(2, 3, 1, 1, dtype=torch.float64)
    sizes = []
    for step in range(10):
        values = torch.tensor([float(step), -float(step)])
        move(Here(images, values, torch.ones_like(images), Budget("linf", 1.0), lambda x: x))
        sizes.append(move.size.flatten().tolist())
    assert [s[0] for s in sizes] == [2.0] * 10
    assert [s[1] for s in sizes] == [2.0] * 3 + [1.0] * 2 + [0.5, 0.25, 0.125, 0.0625, 0.0625 / 2]


def test_apgd_raises_the_objective_more_than_its_first_step(small_network):
    images, labels = _scene()
    results = [
        images,
        *(apgd(small_network, images, labels, budget="linf:8/255", steps=s, judge=None, rng=_rng()) for s in (1, 20)),
    ]
    losses = [cross_entropy(small_network, x, labels) for x in results]
    assert (losses[0] < losses[1]).all()
    assert (losses[1] < losses[2]).all()


@pytest.mark.parametrize("goal", ["prediction", "least_likely", "least_likely_now"])
@pytest.mark.parametrize("shrink", [False, True])
def test_every_goal_moves_its_way(small_network, goal, shrink):
    images, labels = _scene(count=4)
    logits = small_network(images).detach()
    aimed, sense = (logits.argmax(1), 1) if goal == "prediction" else (logits.argmin(1), -1)
    result = apgd(small_network, images, labels, budget="linf:32/255", steps=10, goal=goal, shrink=shrink, rng=_rng(4))
    start, result = (sense * cross_entropy(small_network, x, aimed).sum() for x in (images, result))
    assert result > start + 0.3


def test_targets_are_approached(small_network):
    images, labels = _scene(count=4)
    targets = torch.zeros_like(labels)
    result = apgd(small_network, images, labels, budget="linf:32/255", steps=20, targets=targets, rng=_rng(4))
    before, after = (wrong_pixels(small_network, x, targets).sum() for x in (images, result))
    assert after < before - 0.1


def test_more_restarts_are_never_weaker(small_network):
    images, labels = _scene(count=6)
    shares = [
        wrong_pixels(
            small_network,
            apgd(small_network, images, labels, budget="linf:4/255", steps=5, restarts=r, rng=_rng(6)),
            labels,
        )
        for r in (1, 2, 4)
    ]
    assert (shares[1] >= shares[0]).all()
    assert (shares[2] >= shares[1]).all()
    assert (shares[2] > shares[0]).any()


@pytest.mark.parametrize("class_pixels", [None, (5, 100, 20, 1)])
def test_sea_is_no_weaker_than_any_member_on_any_image(small_network, class_pixels):
    images, labels = _scene(count=6)
    labels[:, :, 8:] = IGNORE
    how = {"budget": "linf:4/255", "steps": 10, "rng": _rng(6)}
    ensemble = wrong_pixels(small_network, sea(small_network, images, labels, class_pixels=class_pixels, **how), labels)
    members = [
        wrong_pixels(
            small_network, apgd(small_network, images, labels, objective=objective, shrink=True, **how), labels
        )
        for objective in (*MEMBERS[:2], balanced(class_pixels))
    ]
    assert torch.equal(ensemble, torch.stack(members).amax(0))
    assert len({tuple(m.tolist()) for m in members}) > 1


@pytest.mark.parametrize(
    "attack",
    [
        lambda *a, **k: sea(*a, steps=6, **k),
        lambda *a, **k: apgd(*a, steps=12, restarts=2, **k),
    ],
)
def test_any_batch_size_gives_the_same_images(small_network, attack):
    images, labels = _scene(count=8)
    labels[3] = IGNORE
    labels[:, :2] = IGNORE
    rng = _rng(8)
    whole = attack(small_network, images, labels, budget="linf:8/255", rng=rng)
    for size in (1, 3):
        parts = [
            attack(
                small_network,
                images[i : i + size],
                labels[i : i + size],
                budget="linf:8/255",
                rng=rng.select(range(i, min(8, i + size))),
            )
            for i in range(0, 8, size)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_what_the_shrinking_radius_returns_is_within_the_budget(small_network):
    images, labels = _scene()
    for steps in (1, 2, 3, 7, 10):
        result = apgd(small_network, images, labels, budget="linf:8/255", steps=steps, shrink=True, rng=_rng())
        assert (result - images).abs().max() <= 8 / 255 + 1e-12


def test_passes_are_those_of_the_steps(small_network):
    images, labels = _scene()
    passes = [0]
    hook = small_network.register_forward_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))
    apgd(small_network, images, labels, budget="linf:8/255", steps=10, restarts=2, rng=_rng())
    assert passes.pop() == 22
    passes.append(0)
    sea(small_network, images, labels, budget="linf:8/255", steps=10, rng=_rng())
    hook.remove()
    assert passes == [39]  # three members of 10 steps in three stages, each judged at its end


@pytest.mark.parametrize(
    ("attack", "finished", "other", "both"),
    [
        (partial(sea, steps=10), 9, 39, 13 + 39),
        (partial(apgd, steps=10, restarts=3), 1, 33, 11 + 33),
        (partial(pgd, steps=5, judge="wrong_pixels"), 1, 6, 6 + 6),
        (partial(segpgd, steps=5, restarts=2), 1, 12, 12 + 12),
    ],
)
def test_finished_images_cost_no_more_passes_and_change_nothing_for_others(
    small_network, attack, finished, other, both
):
    """The first image is wrong everywhere from the start on, the second never; SEA and APGD part them between runs."""
    images, labels = _scene(count=2)
    labels[0] = small_network(images[:1]).argmin(1)
    labels[1] = small_network(images[1:]).argmax(1)
    sizes: list[int] = []
    with small_network.register_forward_hook(lambda *found: sizes.append(len(found[2]))):
        together = attack(small_network, images, labels, budget="linf:1/255", rng=_rng(2))
        passes = [sum(sizes)]
        for i in (0, 1):
            sizes.clear()
            alone = attack(
                small_network, images[i : i + 1], labels[i : i + 1], budget="linf:1/255", rng=_rng(2).select([i])
            )
            assert torch.equal(alone, together[i : i + 1])
            passes.append(sum(sizes))
    wrong = wrong_pixels(small_network, together, labels)
    assert wrong[0] == 1 > wrong[1]
    assert passes == [both, finished, other]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [partial(sea, steps=6), partial(apgd, steps=6, restarts=3)])
def test_images_that_remain_after_others_are_finished_keep_their_own_regions(small_network, attack, norm):
    """The images 0 and 2 are misclassified everywhere from the start, so that later runs attack 1 and 3 alone."""
    images, labels = _scene(count=4)
    logits = small_network(images).detach()
    for i in range(4):
        labels[i] = logits[i].argmax(0) if i % 2 else logits[i].argmin(0)
    region = torch.zeros(4, 8, 10, dtype=torch.bool)
    for i in range(4):
        region[i, 2 * i : 2 * i + 2] = True
    together = attack(small_network, images, labels, budget=Budget(norm, 0.2, region), rng=_rng(4))
    changed = (together != images).any(1)
    assert torch.equal(changed[[1, 3]], region[[1, 3]])
    assert not changed[~region].any()
    for i in range(4):
        one, budget = slice(i, i + 1), Budget(norm, 0.2, region[i])
        alone = attack(small_network, images[one], labels[one], budget=budget, rng=_rng(4).select([i]))
        assert torch.equal(alone, together[one])


def test_bad_restarts_are_refused(small_network):
    with pytest.raises(SpecError, match="restarts >= 1"):
        apgd(small_network, *_scene(), budget="linf:1/255", restarts=0, rng=_rng())
