"""SegPGD and CosPGD: single steps by the formula and by their authors' package, and what they are beside PGD."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from robustseg.attacks import pixelwise
from robustseg.attacks.gradient import pgd
from robustseg.attacks.pixelwise import cospgd, segpgd
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.losses.pixelwise import mean_over_pixels, pixel_segpgd, wrong_pixels


def _scene(count=3, size=(8, 10), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 + 0.8 * torch.rand((count, 3, *size), generator=generator, dtype=torch.float64)
    return images, torch.randint(4, (count, *size), generator=generator)


def _rng(count=3):
    return ImageRng(0, [f"image_{i}" for i in range(count)])


def test_segpgd_with_equal_weights_is_pgd(small_network, monkeypatch):
    images, labels = _scene()
    equal = mean_over_pixels(lambda logits, labels, **_: pixel_segpgd(logits, labels, share=0.5))
    monkeypatch.setattr(pixelwise, "mean_over_pixels", lambda loss: equal)
    how = {"budget": "linf:8/255", "steps": 6, "judge": "cross_entropy", "restarts": 2}
    assert torch.equal(
        segpgd(small_network, images, labels, rng=_rng(), **how), pgd(small_network, images, labels, rng=_rng(), **how)
    )


def test_segpgd_begins_with_the_right_pixels_alone(pixel_network):
    images, labels = _scene()
    result = segpgd(
        pixel_network, images, labels, budget="linf:4/255", steps=1, random_start=False, keep="last", rng=_rng()
    )
    right = pixel_network(images).argmax(1) == labels
    assert torch.equal((result != images).any(1), right)


@pytest.mark.parametrize("towards", [False, True])
@pytest.mark.parametrize("name", ["segpgd", "cospgd"])
def test_steps_equal_those_of_the_authors_package(small_network, name, towards):
    theirs = pytest.importorskip("cospgd").attack_implementations.Attack
    images, labels = _scene()
    current = images.clone()
    for step in range(3):
        leaf = current.clone().requires_grad_()
        logits = small_network(leaf)
        loss = F.cross_entropy(logits, labels, reduction="none")
        if name == "segpgd":
            loss = theirs.segpgd_scale(logits, labels, loss, step, 3, targeted=towards)
        else:
            loss = theirs.cospgd_scale(logits, labels, loss, num_classes=4, targeted=towards).mean()
        (gradient,) = torch.autograd.grad(loss, leaf)
        current = theirs.step_inf(current, 8 / 255, gradient, images, 3 / 255, towards)
    ours = {"segpgd": segpgd, "cospgd": cospgd}[name](
        small_network,
        images,
        torch.zeros_like(labels) if towards else labels,
        budget="linf:8/255",
        steps=3,
        step_size="3/255",
        random_start=False,
        keep="last",
        targets=labels if towards else None,
        rng=_rng(),
    )
    torch.testing.assert_close(ours, current, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attack", [segpgd, cospgd])
def test_targets_are_reached_by_more_pixels(small_network, attack):
    images, labels = _scene(count=8)
    targets = torch.zeros_like(labels)
    result = attack(small_network, images, labels, budget="linf:48/255", targets=targets, rng=_rng(8))
    before, after = (wrong_pixels(small_network, x, targets).sum() for x in (images, result))
    assert after < before - 0.1


@pytest.mark.parametrize("attack", [segpgd, cospgd])
def test_the_best_iterate_of_all_restarts_has_the_most_wrong_pixels(small_network, attack):
    images, labels = _scene()
    labels[:, :, 7:] = IGNORE

    def wrong(**how):
        how = {"budget": "linf:4/255", "steps": 5, **how}
        return wrong_pixels(small_network, attack(small_network, images, labels, rng=_rng(), **how), labels)

    assert (wrong() >= wrong(keep="last")).all()
    assert (wrong(restarts=3) >= wrong()).all()


def test_more_steps_of_cospgd_are_never_weaker(small_network):
    images, labels = _scene()
    shares = [
        wrong_pixels(
            small_network,
            cospgd(small_network, images, labels, budget="linf:8/255", step_size="2/255", steps=s, rng=_rng()),
            labels,
        )
        for s in (1, 3, 9)
    ]
    assert all((more >= less).all() for less, more in itertools.pairwise(shares))
