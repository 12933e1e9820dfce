"""Variants of an attack: their signature, what the attack they vary is called with, and what a spec and a caller are told."""

import inspect
import pickle
import typing

import pytest
import torch

from robustseg.attacks.gradient import fgsm, ifgsm, ifgsm_ll, pgd
from robustseg.attacks.pixelwise import cospgd, segpgd
from robustseg.attacks.presets import arnab2018_ifgsm, klingner2020_pgd
from robustseg.attacks.variants import variant_of
from robustseg.core import registry
from robustseg.core.errors import SpecError
from robustseg.core.random import ImageRng
from robustseg.testing import PixelNetwork

NEEDED = inspect.Parameter.empty
IMAGES, LABELS = torch.zeros(1, 3, 2, 2, dtype=torch.float64), torch.zeros(1, 2, 2, dtype=torch.int64)


def noted(network, images, labels, *, budget: str, steps: int = 20, size: float | None = None, goal: str = "a", rng):
    """An attack that changes nothing and notes its arguments."""
    calls.append({"budget": budget, "steps": steps, "size": size, "goal": goal})
    return images


calls: list[dict[str, object]] = []


def called(attack, **how):
    """What `noted` is called with when its variant is."""
    calls.clear()
    assert attack(PixelNetwork(), IMAGES, LABELS, rng=ImageRng(0, ["a"]), **how) is IMAGES
    (call,) = calls
    return call


def arguments(attack):
    """The arguments that a spec may give, in order, with their defaults."""
    parameters = inspect.signature(attack).parameters
    assert list(parameters)[:3] == ["network", "images", "labels"]
    assert list(parameters)[-1] == "rng"
    return [(name, p.default) for name, p in parameters.items() if name not in ("network", "images", "labels", "rng")]


def test_a_fixed_argument_leaves_the_signature_and_reaches_the_base():
    @variant_of(noted, steps=3)
    def fixed() -> None: ...

    assert arguments(fixed) == [("budget", NEEDED), ("size", None), ("goal", "a")]
    assert called(fixed, budget="x", goal="b") == {"budget": "x", "steps": 3, "size": None, "goal": "b"}


def test_a_parameter_with_a_default_replaces_that_of_the_base_in_its_place():
    @variant_of(noted)
    def changed(goal: str = "b", steps: int | None = None) -> None: ...

    assert arguments(changed) == [("budget", NEEDED), ("steps", None), ("size", None), ("goal", "b")]
    assert inspect.signature(changed).parameters["steps"].annotation == int | None
    assert called(changed, budget="x") == {"budget": "x", "steps": None, "size": None, "goal": "b"}
    assert called(changed, budget="x", goal="c", steps=1)["goal"] == "c"


def test_the_function_sees_what_it_names_and_its_result_replaces_arguments():
    seen = []

    @variant_of(noted, size=..., steps=7)
    def computed(images, budget, goal, steps):
        seen.append((images is IMAGES, budget, goal, steps))
        return {"size": 0.5, "goal": goal + "!"}

    assert arguments(computed) == [("budget", NEEDED), ("goal", "a")]
    assert called(computed, budget="x") == {"budget": "x", "steps": 7, "size": 0.5, "goal": "a!"}
    assert seen == [(True, "x", "a", 7)]


def test_only_names_the_arguments_that_remain():
    seen = []

    @variant_of(noted, only=("goal", "budget"), steps=7)
    def preset(size):
        seen.append(size)

    assert arguments(preset) == [("budget", NEEDED), ("goal", "a")]
    assert called(preset, budget="x", goal="b") == {"budget": "x", "steps": 7, "size": None, "goal": "b"}
    assert seen == [None]


def test_a_variant_can_be_varied():
    @variant_of(noted, steps=3)
    def first(goal: str = "b") -> None: ...

    @variant_of(first, only=("budget",), size=2.0)
    def second() -> None: ...

    assert arguments(second) == [("budget", NEEDED)]
    assert called(second, budget="x") == {"budget": "x", "steps": 3, "size": 2.0, "goal": "b"}


def test_a_variant_is_known_by_its_own_name_and_docstring():
    for attack, name, module in ((segpgd, "segpgd", "pixelwise"), (klingner2020_pgd, "klingner2020_pgd", "presets")):
        assert (attack.__name__, attack.__qualname__) == (name, name)
        assert attack.__module__ == f"robustseg.attacks.{module}"
        assert "Source: " in inspect.getdoc(attack)
        assert pickle.loads(pickle.dumps(attack)) is attack
        hints = typing.get_type_hints(attack)
        assert hints == {n: p.annotation for n, p in inspect.signature(attack).parameters.items()} | {
            "return": inspect.signature(pgd).return_annotation
        }


@pytest.mark.parametrize("how", [{"budget": "linf:1/255", "steps": 1}, {}], ids=["unknown", "missing"])
def test_a_call_with_other_arguments_names_the_attack(how):
    with pytest.raises(TypeError, match=r"^fgsm\(\) .*'(steps|budget)'"):
        fgsm(PixelNetwork(), IMAGES, LABELS, rng=ImageRng(0, ["a"]), **how)


@pytest.mark.parametrize("how", [{"step": 1}, {"only": ("step",)}], ids=["fixed", "only"])
def test_names_that_the_base_does_not_have_are_refused_at_once(how):
    sentence = "expected an argument of noted for odd, got 'step'; try budget, steps, size, goal"

    def odd(steps: int = 3) -> None: ...

    with pytest.raises(TypeError, match=sentence):
        variant_of(noted, **how)(odd)

    def odd(step: int = 3) -> None: ...

    with pytest.raises(TypeError, match=sentence):
        variant_of(noted)(odd)


# The registered variants


def test_signatures_of_the_registered_variants():
    of_pgd = arguments(pgd)
    without = [
        (name, "wrong_pixels" if name == "judge" else default) for name, default in of_pgd if name != "objective"
    ]
    assert arguments(segpgd) == arguments(cospgd) == without
    loss = ("objective", "cross_entropy")
    assert arguments(fgsm) == [("budget", NEEDED), ("goal", "truth"), loss, ("clip", True), ("round", False)]
    assert arguments(ifgsm)[:4] == [("budget", NEEDED), ("steps", None), ("step_size", "1/255"), ("goal", "truth")]
    assert arguments(ifgsm_ll) == [(n, "least_likely" if n == "goal" else d) for n, d in arguments(ifgsm)]
    assert arguments(arnab2018_ifgsm) == [("budget", NEEDED), ("clip", True)]
    assert arguments(klingner2020_pgd) == [("budget", NEEDED)]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            "segpgd()",
            r"expected all needed arguments in 'segpgd', got: .*'budget'; try segpgd\(budget='linf:8/255'\)",
        ),
        (
            "segpgd(budget='linf:8/255', objective='members')",
            "an argument of segpgd, got 'objective'; try budget, steps",
        ),
        ("fgsm(budget='linf:8/255', step=1)", "an argument of fgsm, got 'step'; try budget, goal"),
        ("fgsm(budget='linf:8/255', goals='truth')", "an argument of fgsm, got 'goals'; try goal"),
        ("klingner2020_pgd(budget='linf:8/255', steps=3)", "an argument of klingner2020_pgd, got 'steps'; try budget$"),
        ("ifgsm(budget='linf:8/255', step_size=None)", r"expected float \| str for step_size .* try step_size='1/255'"),
        ("segpgd(budget='linf:8/255', judge=3)", "for judge in .* got 3; try judge='wrong_pixels'"),
    ],
)
def test_a_spec_of_a_variant_is_checked_against_its_own_signature(spec, sentence):
    with pytest.raises(SpecError, match=sentence):
        registry.build("perturbation", spec)


@pytest.mark.parametrize(
    ("spec", "normal"),
    [
        ("ifgsm(steps=None, budget='linf:8/255')", "ifgsm(budget='linf:8/255', steps=None)"),
        (
            "segpgd(judge=None, restarts=2, steps=3, budget='linf:8/255')",
            "segpgd(budget='linf:8/255', steps=3, restarts=2, judge=None)",
        ),
        ("arnab2018_ifgsm(clip=False, budget='l2:1')", "arnab2018_ifgsm(budget='l2:255/255', clip=False)"),
    ],
)
def test_a_spec_of_a_variant_has_one_spelling(spec, normal):
    assert registry.build("perturbation", spec).spec == registry.spelled("perturbation", normal) == normal
