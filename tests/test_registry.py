"""Specs: what is read, what is refused, and that the table found by reading equals what importing registers."""

import importlib

import pytest

from robustseg import registry
from robustseg.records import SpecError


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("clean", "clean"),
        ("pgd( budget = 'linf:8/255',steps=20 )", "pgd(budget='linf:8/255', steps=20)"),
        ("zoo:erfnet-streets", "zoo:erfnet-streets"),
        ("multiscale(zoo:erfnet-streets, scales=(0.5, 1.0))", "multiscale(zoo:erfnet-streets, scales=(0.5, 1.0))"),
        ("runs/a/best.safetensors", "weights('runs/a/best.safetensors')"),
        ("camvid(root='C:/data')", "camvid(root='C:/data')"),
    ],
)
def test_a_spec_has_one_spelling(text: str, normal: str) -> None:
    assert registry.text_of(registry.parse(text)) == normal
    assert registry.text_of(registry.parse(normal)) == normal


@pytest.mark.parametrize("text", ["", "pgd(", "a.b()", "1", "lambda: 0", "pgd(budget=open('x'))", "[1]", "f()()"])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="expected"):
        registry.build("perturbation", text)


def test_unknown_names_and_arguments_name_near_matches() -> None:
    with pytest.raises(SpecError, match="try gaussian"):
        registry.build("perturbation", "gausian(rms='8/255')")
    with pytest.raises(SpecError, match="got 'step'; try steps"):
        registry.build("perturbation", "pgd(budget='linf:8/255', step=3)")
    with pytest.raises(SpecError, match=r"missing a required argument.*try pgd\(budget='linf:8/255'\)"):
        registry.build("perturbation", "pgd()")
    with pytest.raises(SpecError, match="'linf' or 'l2'"):
        registry.build("perturbation", "pgd(budget='l7:8/255')")


def test_nothing_is_evaluated() -> None:
    with pytest.raises(SpecError):
        registry.build("perturbation", "gaussian(rms=__import__('os').getpid())")


def test_fractions_are_numbers() -> None:
    assert registry.build("perturbation", "gaussian(rms=8/255)").arguments["rms"] == 8 / 255
    assert registry.build("perturbation", "pgd(budget='linf:8/255')").arguments["budget"].eps == 8 / 255


def test_the_table_equals_the_decorators() -> None:
    for entry in registry.table().values():
        importlib.import_module(entry.module)
        decorator, function = registry._functions[entry.kind, entry.name]
        assert (decorator, function.__module__) == (entry.decorator, entry.module)
    ours = {key for key, (_, f) in registry._functions.items() if f.__module__.startswith("robustseg.")}
    assert ours == {key for key, e in registry.table().items() if e.module.startswith("robustseg.")}


def test_every_entry_says_what_it_is() -> None:
    assert [e.name for e in registry.table().values() if not e.summary] == []


def test_a_name_is_taken_once() -> None:
    def twice() -> None: ...

    registry.network("_test_taken")(twice)
    try:
        with pytest.raises(SpecError, match="try another name"):
            registry.network("_test_taken")(lambda: None)
    finally:
        del registry._functions["network", "_test_taken"]
