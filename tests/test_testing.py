"""The conformance kit over the whole registry, and that it finds what it should find."""

from types import SimpleNamespace

import pytest
import torch

from robustseg.core import registry
from robustseg.core.budget import Budget
from robustseg.core.labels import IGNORE
from robustseg.core.registry import Configured
from robustseg.core.types import Dataset
from robustseg.losses.pixelwise import OBJECTIVES
from robustseg.testing import (
    ConformanceError,
    PixelNetwork,
    SmallNetwork,
    check_dataset,
    check_network,
    check_perturbation,
    gray_space,
)

EIGHT = Budget.parse("linf:8/255")


SHORT = {"almaprox": ", steps=12, share=0.6", "apgd": ", steps=8", "sea": ", steps=4", "search": ", queries=20"}
"""Fewer steps than by default, for the attacks that take many."""


def _names(decorator: str) -> list[str]:
    return sorted(e.name for e in registry.table().values() if e.decorator == decorator)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", sorted({*_names("attack")} - {"saved"}))  # has no budget of its own: test_saved
def test_attacks_conform(name, norm):
    size = {"linf": "4/255", "l2": "0.2"}[norm]
    short = SHORT.get(name, "")
    check_perturbation(f"{name}(budget='{norm}:{size}'{short})", still=f"{name}(budget='{norm}:0'{short})")


@pytest.mark.parametrize("goal", ["truth", "prediction", "least_likely", "least_likely_now"])
@pytest.mark.parametrize("round", [False, True])
def test_every_goal_conforms(goal, round):
    check_perturbation(f"pgd(budget='linf:4/255', steps=3, restarts=2, goal='{goal}', round={round})")


@pytest.mark.parametrize("objective", sorted({*OBJECTIVES} - {"wrong_pixels"}))
def test_every_objective_conforms(objective):
    check_perturbation(f"pgd(budget='linf:4/255', steps=3, objective='{objective}')")


@pytest.mark.parametrize("name", sorted({*_names("noise")} - {"clean"}))
def test_noises_conform(name):
    check_perturbation(f"{name}(rms='8/255')", still=f"{name}(rms=0)")


def test_clean_conforms():
    check_perturbation("clean", still="clean")


@pytest.mark.parametrize("network", [PixelNetwork(), SmallNetwork(), SmallNetwork(classes=7).float().train()])
def test_the_small_networks_conform(network):
    check_network(network)


def _step(network, images, labels, eps=8 / 255):
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf).square().sum(), leaf)
    return (images + eps * gradient.sign()).clamp(0, 1)


def _spoil_mode(network, images, labels, *, rng):
    network.eval()
    return images.clone()


def _leave_gradient(network, images, labels, *, rng):
    with torch.inference_mode(False), torch.enable_grad():
        network.layers[0](images.clone()).sum().backward()
    return images.clone()


def _change_input(network, images, labels, *, rng):
    return images.mul_(0.999)


def _leave_range(network, images, labels, *, rng):
    return images + 1


def _leave_budget(network, images, labels, *, rng):
    return (images + 9 / 255).clamp(0, 1)


def _change_dtype(network, images, labels, *, rng):
    return images.half()


def _global_draw(network, images, labels, *, rng):
    return (images + torch.rand_like(images) / 255).clamp(0, 1)


def _batch_mean(network, images, labels, *, rng):
    return (images + 0.01 * (images.mean() if len(images) else 0)).clamp(0, 1)


def _count_void(network, images, labels, *, rng):
    shift = 0.01 * images.flatten(1).mean(1).view(-1, 1, 1, 1) if len(images) else 0
    return (images + shift).clamp(0, 1)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (_spoil_mode, "leave the mode"),
        (_leave_gradient, "leave no gradient"),
        (_change_input, "leave the images"),
        (_leave_range, r"within \[0, 1\]"),
        (_leave_budget, "within linf:8/255"),
        (_change_dtype, "keep the dtype"),
        (_global_draw, "ignore the caller|repeat itself"),
        (_batch_mean, "each image alone"),
        (_count_void, "under void"),
    ],
)
def test_a_perturbation_that_breaks_a_promise_is_found(function, sentence):
    spoiled = Configured(function, {}, "spoiled", sees_network=True)
    with pytest.raises(ConformanceError, match=sentence):
        check_perturbation(spoiled, budget=EIGHT)


def test_a_still_perturbation_that_moves_is_found():
    with pytest.raises(ConformanceError, match="to return the input"):
        check_perturbation("sign(rms='8/255')", still="sign(rms='1/255')")


class _Halved(PixelNetwork):
    def forward(self, images):
        return super().forward(images)[..., ::2, ::2]


class _Coupled(PixelNetwork):
    def forward(self, images):
        return super().forward(images - images.mean())


@pytest.mark.parametrize(("network", "sentence"), [(_Halved(), "expected logits"), (_Coupled(), "each image alone")])
def test_a_network_that_breaks_a_promise_is_found(network, sentence):
    with pytest.raises(ConformanceError, match=sentence):
        check_network(network)


class _Spare(PixelNetwork):
    def forward(self, images):
        logits = super().forward(images)
        return torch.cat([logits, logits[:, :1] - 1], 1)


def test_a_network_may_have_more_outputs_than_classes():
    check_network(_Spare())
    few = PixelNetwork()
    few.label_space = gray_space(5)
    with pytest.raises(ConformanceError, match="5 or more, 64, 96"):
        check_network(few)


class _Pictures(Dataset):
    spec = "pictures"
    ids = ("a_0", "a_1")
    label_space = gray_space(3)

    def __init__(self, **spoiled):
        self.spoiled = {"image": torch.full((3, 4, 5), 0.5), "labels": torch.full((4, 5), IGNORE), **spoiled}

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return SimpleNamespace(**{"id": self.ids[index], "extras": {}, **self.spoiled})


def test_a_good_dataset_passes():
    check_dataset(_Pictures())


@pytest.mark.parametrize(
    ("spoiled", "sentence"),
    [
        ({"image": torch.full((3, 4, 5), 255.0)}, r"in \[0, 1\]"),
        ({"labels": torch.full((4, 5), 3)}, "labels 0 to 2 or 255"),
        ({"labels": torch.full((5, 4), 0)}, "int64 labels"),
        ({"id": "b"}, "to be 'a_0'"),
    ],
)
def test_a_dataset_that_breaks_a_promise_is_found(spoiled, sentence):
    with pytest.raises(ConformanceError, match=sentence):
        check_dataset(_Pictures(**spoiled))
