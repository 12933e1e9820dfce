"""Specs: what is read, what is refused, and that the table found by reading equals what importing registers."""

import importlib
import importlib.metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from robustseg.core import registry
from robustseg.core.errors import RobustsegError, SpecError
from robustseg.networks.weights import save


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


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        ("perturbation", "pgd(budget=8/255)", "expected Budget | str for budget .* try budget='linf:8/255'"),
        ("perturbation", "pgd(budget='linf:8/255', steps='20')", "expected int for steps .* got '20'; try steps=20"),
        ("perturbation", "pgd(budget='linf:8/255', steps=True)", "expected int for steps"),
        ("perturbation", "pgd(budget='linf:8/255', objective=3)", "for objective"),
        ("perturbation", "gaussian(rms=None)", "expected float | str for rms .* got None; try rms='8/255'"),
        ("perturbation", "gaussian(rms=1/0)", "expected a fraction of two numbers, got '1 / 0'"),
        ("perturbation", "gaussian(rms='a'/2)", "expected a fraction of two numbers"),
        ("perturbation", "gaussian(rms=1, rms=2)", "got 'rms' twice"),
        ("network", "erfnet(width='2')", "expected float for width"),
        ("network", "erfnet(dropout=0.1)", r"expected tuple\[float, float\] for dropout"),
        ("network", "erfnet(dropout=(0.1, 0.1, 0.1))", "for dropout"),
        ("network", "erfnet(classes=('road', 3))", "for classes"),
        ("network", "erfnet('camvid')", "expected all needed arguments .* positional"),
        ("data", "streets(size=3)", "for size"),
        ("data", "camvid(root=3)", "expected str for root .* got 3"),
        ("data", "camvid('a', root='b')", "got 'root' twice"),
    ],
)
def test_arguments_of_another_type_are_refused(kind: str, text: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        registry.build(kind, text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("perturbation", "pgd(budget='linf:8/255', steps=3, step_size=None)"),
        ("perturbation", "pgd(budget='linf:8/255', step_size='2/255')"),
        ("perturbation", "gaussian(rms='0/255')"),
        ("network", "erfnet(classes=('road', 'car'), width=1, dropout=(0, 0.1))"),
        ("network", "enet(classes=3, weights=None)"),
    ],
)
def test_arguments_that_fit_are_taken(kind: str, text: str) -> None:
    assert registry.build(kind, text).spec == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("fgsm(budget='linf: 8/255')", "fgsm(budget='linf:8/255')"),
        ("fgsm(budget='linf:0.03137254901960784')", "fgsm(budget='linf:8/255')"),
        ("fgsm(budget='l2:2.5')", "fgsm(budget='l2:637.5/255')"),
        ("ifgsm(step_size=2/255, budget='linf:8/255')", "ifgsm(budget='linf:8/255', step_size='2/255')"),
        ("gaussian(rms=0.1)", "gaussian(rms='25.5/255')"),
        (
            "saved(folder='x', perturbation=fgsm(budget='linf:8 / 255'))",
            "saved(perturbation=fgsm(budget='linf:8/255'), folder='x')",
        ),
    ],
)
def test_equal_perturbations_have_one_canonical_spelling(text: str, canonical: str) -> None:
    built = registry.build("perturbation", text)
    assert built.spec == registry.spelled("perturbation", text) == canonical
    assert registry.describe(canonical).spec == canonical


def test_a_perturbation_is_described_as_data() -> None:
    said = registry.describe("saved(perturbation=pgd(budget='linf: 2/255', steps=3), folder='x')")
    assert (said.name, said.kind) == ("pgd", "attack")
    assert said.arguments == {"budget": "'linf:2/255'", "steps": "3"}
    assert said.budget is not None
    assert (said.budget.norm, said.budget.eps) == ("linf", 2 / 255)
    assert [registry.describe(text).kind for text in ("clean", "sign(rms='1/255')", "of_another_package()")] == [
        "clean",
        "noise",
        "",
    ]
    assert registry.describe("no spec at all").name == "no spec at all"


def test_what_is_built_carries_one_spelling(tmp_path: Path) -> None:
    @registry.dataset("_test_pair")
    class Pair:
        def __init__(self, root: str | Path, split: str = "test", **more: object): ...

    @registry.network("_test_vote")
    class Vote:
        def __init__(self, *networks: object, soft: bool = False): ...

    for text in ("_test_pair('/d', 'val')", "_test_pair('/d', split='val')", "_test_pair(split='val', root='/d')"):
        assert registry.build("data", text).spec == "_test_pair(root='/d', split='val')"
    vote = registry.build("network", "_test_vote(torchvision('lraspp_mobilenet_v3_large', classes=2), soft=True)")
    assert vote.spec == "_test_vote(torchvision(name='lraspp_mobilenet_v3_large', classes=2), soft=True)"
    network = registry.build("network", "erfnet(width=0.25)")
    save(network, tmp_path / "own.safetensors")
    path = str(tmp_path / "own.safetensors")
    for text in (path, f"weights({path!r})", f"weights(path={path!r})"):
        assert registry.build("network", text).spec == f"weights({path!r})"


def test_a_broken_outside_package_does_not_break_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("gone", "_no_such_package.attacks", "robustseg")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    registry._outside_entries.cache_clear()
    try:
        assert ("perturbation", "pgd") in registry.table()
    finally:
        registry._outside_entries.cache_clear()


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
    with pytest.raises(SpecError, match="try another name"):
        registry.network("_test_taken")(lambda: None)


@pytest.mark.parametrize(
    "text", ["mine(budget=0.1)", "mine(budget=None)", "mine(budget='far')", "mine(budget=other(1))"]
)
def test_a_budget_that_cannot_be_read_is_none(text: str) -> None:
    """Perturbations from Python carry any text as their spec; a run must not fail over it at its end."""
    assert registry.describe(text).budget is None


LONG = {
    "characters": "a" * 100_000,
    "names inside names": "multiscale(" * 3000 + ")" * 3000,
    "brackets": "erfnet(width=" + "(" * 3000 + "1" + ")" * 3000 + ")",
    "minus signs": "erfnet(width=" + "-" * 40_000 + "1)",
    "lists": "erfnet(width=" + "[" * 150 + "1" + "]" * 150 + ")",
    "a chain of fractions": "erfnet(width=" + "1/" * 10_000 + "1)",
    "a chain of names": "erfnet(width=" + "a." * 10_000 + "a)",
    "NUL": "erfnet\0",
    "half a surrogate pair": "erfnet(\ud800)",
    "infinity": "erfnet(width=1e400)",
    "a power": "erfnet(width=10**5000)",
    "5,000 digits": "erfnet(width=" + "9" * 5000 + ")",
    "4,000 digits": "erfnet(width=" + "9" * 4000 + ")",
    "a fraction of 4,000 digits": "erfnet(width=" + "9" * 4000 + "/3)",
    "a path": "weights('" + "b" * 30_000 + "')",
    "a folder": "a/" * 5000 + "x.safetensors",
    "a file of classes": "erfnet(classes='" + "x" * 5000 + ".txt')",
    "NUL in a file of classes": "erfnet(classes='a\\0.txt')",
    "a thousand million classes": "erfnet(classes=1000000000)",
    "no classes": "erfnet(classes=0)",
    "classes below none": "erfnet(classes=-1)",
    "markup": "[bold]erfnet[/bold]",
    "an escape": "\x1b[31merfnet",
    "a name of a zoo": "zoo:" + "x" * 30_000,
    "nothing": "",
    "a width of nothing": "erfnet(width=0)",
    "a width of terabytes": "erfnet(width=1e9)",
}


@pytest.mark.parametrize("what", LONG)
def test_no_text_is_too_strange_for_one_short_sentence(what: str) -> None:
    with pytest.raises(RobustsegError) as caught:
        registry.build("network", LONG[what])
    said = str(caught.value)
    assert len(said) < 700
    assert said.isprintable()
    said.encode()  # without halves of surrogate pairs
    registry.describe(LONG[what])  # as a perturbation of a foreign record


def test_paths_that_cannot_be_are_errors_of_ours() -> None:
    for spec in ("camvid(root='" + "q" * 5000 + "')", "folder(images='" + "z" * 900 + "', labels='x', classes=3)"):
        with pytest.raises(RobustsegError, match=r"expected to open .* File name too long|expected"):
            registry.build("data", spec)
