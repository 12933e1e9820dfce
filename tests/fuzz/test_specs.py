"""Specs made from the signatures in the registry, with right and wrong arguments, against `ast.literal_eval`."""

import ast
import inspect
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuzz.harness import Refusal, answer, corpus, examples, kept, tell
from robustseg.core import registry
from robustseg.core.budget import Budget

pytestmark = pytest.mark.filterwarnings("ignore")  # hypothesis', of long inputs
BUILT = ("perturbation", "network", "data")
OUTSIDE = {"module", "transformers", "torchvision", "smp"}
"""Networks of the user's code and of other packages: these are spelled, not built."""
SIGNATURES = {
    kind: {name: inspect.signature(registry.function(kind, name)) for k, name in sorted(registry.table()) if k == kind}
    for kind in BUILT
}
TEXTS = [
    "linf:8/255",
    "l2:2.5",
    "linf:1e-3",
    "linf:nan",
    "l2:-1",
    "8/255",
    "0.1",
    "camvid",
    "truth",
    "best",
    "é\u202e",
    "a'b",
    "",
]

literals = st.recursive(
    st.one_of(
        st.integers(-3, 300),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.none(),
        st.sampled_from(TEXTS),
        st.text(max_size=12),
        st.binary(max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def specs(draw: st.DrawFn, kind: str, levels: int = 2) -> str:
    """A call of something registered: with arguments that fit, or with any."""
    name = draw(st.sampled_from(list(SIGNATURES[kind])))
    parameters = {n: p for n, p in SIGNATURES[kind][name].parameters.items() if n not in ("images", "labels", "rng")}
    if kind == "perturbation":
        parameters.pop("network", None)
    fitting = draw(st.integers(0, 2)) > 0
    chosen = (
        draw(
            st.lists(
                st.sampled_from([*parameters] if fitting else [*parameters, "nothing", "é"]), max_size=4, unique=True
            )
        )
        if parameters
        else []
    )
    needed = (
        [n for n, p in parameters.items() if (p.default is p.empty and p.kind is p.KEYWORD_ONLY) or n == "network"]
        if fitting
        else []
    )
    arguments = []
    for argument in dict.fromkeys([*needed, *chosen]):
        value = draw(_fitting(argument, parameters[argument]) if fitting else _values(kind, levels))
        arguments.append(value if not fitting and draw(st.integers(0, 9)) == 0 else f"{argument}={value}")
    return f"{name}({', '.join(arguments)})"


def _values(kind: str, levels: int) -> st.SearchStrategy[str]:
    inner = [specs(kind=k, levels=levels - 1) for k in BUILT] if levels else []
    return st.one_of(
        literals.map(repr), st.sampled_from(["8/255", "1/0", "-1/2", "2**999", "x", "inf", "1e999"]), *inner
    )


def _fitting(name: str, parameter: inspect.Parameter) -> st.SearchStrategy[str]:
    """Values that a parameter may well take."""
    known = {"budget": ["'linf:8/255'", "'l2:2.5'", "'linf:0.5'", "'linf:1e-3'"], "rms": ["'8/255'", "0.1", "8/255"]}
    known |= {
        "network": ["erfnet(width=0.25)", "erfnet"],
        "step_size": ["1/255", "'2/255'", "0.01"],
        "classes": ["'camvid'", "3"],
    }
    known |= {"perturbation": ["clean", "gaussian(rms='8/255')"], "steps": ["1", "20"], "targets": ["None"]}
    if name in known:
        return st.sampled_from(known[name])
    kind = type(parameter.default)
    if kind in (bool, int, float):
        return {bool: st.booleans(), int: st.integers(0, 5), float: st.floats(0, 2)}[kind].map(repr)
    return st.just("'x'" if parameter.default is parameter.empty else repr(parameter.default))


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, str]:
    """(kind, text): a spec, one with damaged text, or one that is too long or too deep."""
    kind = draw(st.sampled_from(BUILT))
    text = draw(specs(kind=kind))
    how = draw(st.sampled_from(["whole", "whole", "whole", "edited", "edited", "nested", "long"]))
    if how == "edited":
        at = draw(st.integers(0, len(text)))
        odd = st.sampled_from(
            ["(", ")", "'", '"', ",", "=", ":", "\\", "\x00", "\n", " ", "\ud800", "é", "*", "#", "lambda:0", ";"]
        )
        text = text[:at] + draw(st.one_of(odd, st.text(max_size=3))) + text[at + draw(st.integers(0, 3)) :]
    if how in ("nested", "long"):
        before, after = draw(
            st.sampled_from([("(", ")"), ("[", "]"), ("-", ""), ("clean(", ")"), ("~", ""), ("1+", "1"), ("a.", "b")])
        )
        count = draw(st.sampled_from([50, 300, 3000, 100_000] if how == "long" else [20, 90, 150]))
        inside = text.removesuffix(")")
        text = f"{inside}{'' if inside.endswith('(') else ', '}steps={before * count}1{after * count})"
    return kind, text


@given(drawn=texts())
@examples(200)
def test_specs(drawn: tuple[str, str], tally: Counter[str]) -> None:
    kind, text = drawn
    with kept("specs", f"{kind}\n{text}", ".txt"):
        tell(tally, check(kind, text))


@corpus("specs")
def test_specs_that_failed_once(path: Path) -> None:
    kind, text = path.read_bytes().decode("utf-8", "surrogatepass").split("\n", 1)
    check(kind, text)


def check(kind: str, text: str) -> bool:
    """Whether a spec is accepted; if so the arguments are the literals in it, and its spelling means the same."""
    registry.describe(text)  # reads any text
    spelled = answer(lambda: registry.spelled(kind, text))
    if kind == "network" and any(f"{name}" in text for name in OUTSIDE):
        return not isinstance(spelled, Refusal)
    built = answer(lambda: _built(kind, text))
    if isinstance(built, Refusal):
        return False
    assert not isinstance(spelled, Refusal), (
        f"expected one verdict, got a thing that is built and not spelled: {spelled}"
    )
    assert answer(lambda: registry.spelled(kind, spelled)) == spelled
    if kind == "perturbation":
        assert built.spec == spelled
        given = {keyword.arg: _read(keyword.arg, keyword.value) for keyword in _call(text).keywords}
        assert built.arguments.keys() == given.keys()
        assert all(_same(built.arguments[name], given[name]) for name in given), (built.arguments, given)
        again = _built(kind, built.spec)
        assert again.spec == built.spec
    return True


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments are the same; a spec inside a spec is not looked into."""
    if isinstance(other, ast.Call):
        return not isinstance(one, (str, int, float, tuple))
    return repr(one) == repr(other) or one == pytest.approx(other, rel=1e-5, nan_ok=True)


def _built(kind: str, text: str) -> Any:
    with torch.device("meta"):  # nothing is allocated, however wide
        return registry.build(kind, text)


def _call(text: str) -> ast.Call:
    node = ast.parse(text.strip(), mode="eval").body
    return node if isinstance(node, ast.Call) else ast.Call(node, [], [])


def _read(name: str | None, node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _read(name, node.left) / _read(name, node.right)
    if isinstance(node, ast.Call):
        return node
    value = ast.literal_eval(node)
    if name == "budget" and isinstance(value, str):
        norm, _, size = value.partition(":")
        return Budget(norm.strip(), float(Fraction(size.strip()) if "/" in size else float(size)))
    if name in ("rms", "step_size") and isinstance(value, str):
        return float(Fraction(value) if "/" in value else float(value))
    return tuple(value) if isinstance(value, list) else value
