"""Names and spec call-trees to built objects. No torch until something is built.

A spec is a call tree in Python's syntax: `"pgd(budget='linf:8/255', steps=20)"`, `"camvid(root='…', split='test')"`,
`"multiscale(zoo:erfnet-streets, scales=(0.5, 1.0))"`. Names are looked up here, arguments are literals, fractions or
specs; nothing is evaluated. `zoo:NAME` is short for `zoo('NAME')`, and a path that ends in `.safetensors` for
`weights('PATH')`. What is built carries the canonical spelling: every other argument by its name, in the signature's
order, and of a perturbation budgets and sizes as n/255, so that equal perturbations have equal specs.

What can be named is found by reading the decorators of the package's files (`@attack("pgd")`), so that listing needs
no import and adding needs one file. Other packages join by an entry point of the group `robustseg` that names a module.
"""

import ast
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from robustseg.core.budget import Budget, as_255, fraction
from robustseg.core.errors import RobustsegError, SpecError, message_of, readable

log = logging.getLogger(__name__)

LONGEST, DEEPEST, LARGEST = 50_000, 40, 2**63
"""Limits of a spec: characters, levels of its call tree, and every number in it."""

RUNS_CODE = "module('x:y') imports and runs x.py."
"""Said wherever users copy specs from: nothing else in a spec is code."""

KINDS = {
    "attack": "perturbation",
    "noise": "perturbation",
    "network": "network",
    "dataset": "data",
    "study": "study",
}
"""Decorator -> kind of thing it registers."""


class Quantity(NamedTuple):
    """How an argument that has many spellings is read, and how its value is spelled."""

    read: Callable[[Any], Any]
    spell: Callable[[Any], str]


QUANTITIES = {
    "budget": Quantity(Budget.parse, lambda budget: str(budget.spec)),
    "rms": Quantity(fraction, as_255),
    "step_size": Quantity(fraction, as_255),
}
"""The arguments of perturbations that have many spellings."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Entry(NamedTuple):
    """One name that a spec may use."""

    kind: str
    decorator: str
    name: str
    module: str
    summary: str


_functions: dict[tuple[str, str], tuple[str, Callable[..., Any]]] = {}


def _decorator(decorator: str, name: str) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        key = (KINDS[decorator], name)
        known = _functions.get(key)
        if known and (known[1].__module__, known[1].__qualname__) != (function.__module__, function.__qualname__):
            raise SpecError(
                f"expected a new {key[0]} name, got '{name}', which {known[1].__module__} has; try another name"
            )
        _functions[key] = (decorator, function)
        return function

    return register


def attack(name: str) -> Callable[[Function], Function]:
    """Register `(network, images, labels, *, budget, …, rng) -> images` as a perturbation."""
    return _decorator("attack", name)


def noise(name: str) -> Callable[[Function], Function]:
    """Register `(images, *, …, rng) -> images` as a perturbation that sees no network."""
    return _decorator("noise", name)


def network(name: str) -> Callable[[Function], Function]:
    """Register a class or function that builds a `Network`."""
    return _decorator("network", name)


def dataset(name: str) -> Callable[[Function], Function]:
    """Register a class or function that builds a `Dataset`."""
    return _decorator("dataset", name)


def study(name: str) -> Callable[[Function], Function]:
    """Register a function that gives the study of a paper, see `robustseg.studies.study`."""
    return _decorator("study", name)


def function(kind: str, name: str) -> Callable[..., Any]:
    """What is registered under a name.

    Raises:
        SpecError: there is no such name.
    """
    return _lookup(kind, name)[1]


@dataclass(frozen=True)
class Configured:
    """A registered perturbation with its arguments: `(network, images, labels, *, rng) -> images`."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    spec: str
    sees_network: bool

    def __call__(self, network: Any, images: Any, labels: Any, *, rng: Any) -> Any:
        """Perturb; see `robustseg.core.types.Perturbation`."""
        head = (network, images, labels) if self.sees_network else (images,)
        return self.function(*head, rng=rng, **self.arguments)


def build(kind: str, spec: str) -> Any:
    """Build what a spec names, with the normalised spec as its attribute `spec`.

    Raises:
        SpecError: the text is no spec, the name is unknown, or an argument does not fit.
    """
    return _build(kind, _ByName(kind).visit(parse(spec)))


def spelled(kind: str, spec: str) -> str:
    """The one spelling of a spec, as what it builds carries it; nothing is built.

    Raises:
        SpecError: the text is no spec, or names nothing known.
    """
    return text_of(_ByName(kind).visit(parse(spec)))


def parse(spec: str) -> ast.Call:
    """The call tree of a spec; a bare name is a call without arguments.

    Raises:
        SpecError: the text is no spec, has more than `LONGEST` characters, or nests deeper than `DEEPEST`.
    """
    text = spec.strip()
    if len(text) > LONGEST:
        raise SpecError(
            f"expected a spec of at most {LONGEST} characters, got {len(text)}, '{readable(spec, 80)}'; try fewer"
        )
    if re.fullmatch(r"[^'\"()]+\.safetensors", text):
        text = f"weights({text!r})"
    # name:rest outside quotes -> name('rest')
    quoted = re.split(r"('[^']*'|\"[^\"]*\")", text)
    quoted[::2] = [re.sub(r"\b([a-z_]\w*):([\w./~-]+)", r"\1('\2')", part) for part in quoted[::2]]
    try:
        node = ast.parse("".join(quoted), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(
            f"expected a spec like \"pgd(budget='linf:8/255')\", got '{readable(spec, 200)}'; "
            "try checking quotes and brackets"
        ) from error
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        hint = "\"enet(weights='FILE.pth')\" or \"module('package.file:build', weights='FILE.pth')\" for a checkpoint"
        raise SpecError(f"expected a name with arguments, got '{readable(spec, 200)}'; try robustseg list, or {hint}")
    _require_bounded(node)
    return node


def _require_bounded(call: ast.Call) -> None:
    """Raise unless a call tree is shallow enough to be walked, and its numbers are of a size that computers count with."""
    level: list[ast.AST] = [call]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        for node in level:
            value = getattr(node, "value", None)
            if isinstance(node, ast.Constant) and isinstance(value, (int, float)) and not abs(value) < LARGEST:
                shown = "a larger one" if isinstance(value, int) else value
                raise SpecError(f"expected numbers below 2**63 in '{call.func.id}(…)', got {shown}; try a smaller one")  # type: ignore[attr-defined]
    if level:
        raise SpecError(
            f"expected at most {DEEPEST} levels of brackets and operators in '{call.func.id}(…)', got more; "  # type: ignore[attr-defined]
            "try fewer networks inside one another"
        )


def text_of(node: ast.Call) -> str:
    """The normalised text of a call tree: `zoo('a')` as `zoo:a`, one spelling of blanks and quotes."""
    name = _name(node)
    if name == "zoo" and not node.keywords and len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
        return f"zoo:{node.args[0].value!s}"
    parts = [text_of(a) if isinstance(a, ast.Call) else ast.unparse(a) for a in node.args]
    for keyword in node.keywords:
        value = text_of(keyword.value) if isinstance(keyword.value, ast.Call) else ast.unparse(keyword.value)
        parts.append(f"{keyword.arg}={value}")
    return f"{name}({', '.join(parts)})" if parts else name


class Description(NamedTuple):
    """What a perturbation's spec says, as data.

    Args:
        spec: in the canonical spelling of its quantities.
        name: of the perturbation; of one that writes another's images to files, that of the other.
        kind: `clean`, `noise` or `attack`; empty where no known name decides it.
        arguments: argument -> canonical text, in the order of the spec.
        budget: the threat model; None where the spec names none.
    """

    spec: str
    name: str
    kind: str
    arguments: dict[str, str]
    budget: Budget | None


@functools.lru_cache(maxsize=4096)
def describe(spec: str) -> Description:
    """Read a perturbation's spec: the one place where its text becomes name, kind, arguments and budget.

    Nothing is imported or built. A text that is no spec, as a perturbation from Python may carry, is its own name.
    """
    try:
        node = parse(spec)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                _with_quantities(inner)
        whole = text_of(node)
    except SpecError:
        return Description(spec, spec, "", {}, None)
    inside = next((k.value for k in node.keywords if k.arg == "perturbation" and isinstance(k.value, ast.Call)), node)
    name = _name(inside)
    arguments = {str(k.arg): ast.unparse(k.value) for k in inside.keywords}
    given = [k.value.value for k in inside.keywords if k.arg == "budget" and isinstance(k.value, ast.Constant)]
    budget = Budget.parse(given[0]) if given and isinstance(given[0], str) else None
    entry = table().get(("perturbation", name))
    kind = "clean" if whole == "clean" else entry.decorator if entry else ""
    return Description(whole, name, kind, arguments, budget)


def table() -> dict[tuple[str, str], Entry]:
    """(kind, name) -> entry for everything a spec may name, found without importing it."""
    return {(e.kind, e.name): e for e in (*_own_entries(), *_outside_entries())}


def _build(kind: str, node: ast.Call) -> Any:
    decorator, function = _lookup(kind, _name(node))
    spec = text_of(node)
    args = [_argument(kind, a) for a in node.args]
    named = {str(k.arg): _argument(kind, k.value) for k in node.keywords}
    sees_network = decorator == "attack"
    if kind != "perturbation":
        _check_arguments(function, args, named, spec, skip=0)
        try:
            thing = function(*args, **named)
        except (OSError, MemoryError) as error:
            raise RobustsegError(
                f"expected to open '{readable(spec, 200)}', got {message_of(error)}; try another path or size"
            ) from error
        thing.spec = spec
        return thing
    if args:
        parameters = list(inspect.signature(function).parameters.values())[3 if sees_network else 1 :]
        raise SpecError(f"expected named arguments, got '{spec}'; try {_usage(spec, parameters)}")
    read = {
        name: QUANTITIES[name].read(v) if name in QUANTITIES and isinstance(v, str) else v for name, v in named.items()
    }
    _check_arguments(function, [], read, spec, skip=3 if sees_network else 1)
    built = Configured(function, read, spec, sees_network)
    _try_on_nothing(built)
    return built


def _try_on_nothing(perturbation: Configured) -> None:
    """Run a perturbation on no image at all, so that a value outside its range is said before the first batch is."""
    import torch

    from robustseg.core.labels import LabelSpace
    from robustseg.core.random import ImageRng
    from robustseg.core.types import Network

    images, labels = torch.zeros(0, 3, 8, 8), torch.zeros(0, 8, 8, dtype=torch.int64)
    network = Network(LabelSpace(("nothing",), ((0, 0, 0),)))
    try:
        perturbation(network, images, labels, rng=ImageRng(0, ()))
    except RobustsegError:
        raise
    except Exception as error:  # whatever a foreign one does with nothing; `testing.check_perturbation` asks for more
        log.debug("%s does not take an empty batch: %s", perturbation.spec, error)


class _ByName(ast.NodeTransformer):
    """Gives a call tree its one spelling: arguments by name in the signature's order, each once."""

    def __init__(self, kind: str):
        self.kind = kind

    def visit_Call(self, node: ast.Call) -> ast.Call:
        name = _name(node)
        self.generic_visit(node)
        parameters = inspect.signature(_lookup(self.kind, name)[1]).parameters
        kinds = {p.kind for p in parameters.values()}
        # What comes first in a perturbation are the images, which no spec names.
        if self.kind != "perturbation" and inspect.Parameter.VAR_POSITIONAL not in kinds:
            names = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
            named = [ast.keyword(n, a) for n, a in zip(names, node.args, strict=False)]
            node.args, node.keywords = node.args[len(named) :], named + node.keywords
        given = [str(k.arg) for k in node.keywords]
        for argument in given:
            if given.count(argument) > 1:
                raise SpecError(f"expected each argument of {name} once, got '{argument}' twice; try one of them")
        order = list(parameters)
        node.keywords.sort(key=lambda k: order.index(k.arg) if k.arg in order else len(order))
        if name in ("zoo", "weights") and not node.args and len(given) == 1:
            node.args, node.keywords = [node.keywords[0].value], []
        return _with_quantities(node) if self.kind == "perturbation" else node


def _with_quantities(node: ast.Call) -> ast.Call:
    """The same call, with `QUANTITIES` in their canonical spelling."""
    for keyword in node.keywords:
        if keyword.arg in QUANTITIES and not isinstance(keyword.value, ast.Call):
            value = _argument("perturbation", keyword.value)
            if isinstance(value, str) or (keyword.arg != "budget" and _fits(value, float)):
                quantity = QUANTITIES[keyword.arg]
                keyword.value = ast.Constant(quantity.spell(quantity.read(value)))
    return node


def _lookup(kind: str, name: str) -> tuple[str, Callable[..., Any]]:
    if (kind, name) not in _functions:
        entries = table()
        if (kind, name) not in entries:
            known = sorted(n for k, n in entries if k == kind)
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
            raise SpecError(f"expected a known {kind}, got '{name}'; try {', '.join(near)} (robustseg list {kind})")
        importlib.import_module(entries[kind, name].module)
    return _functions[kind, name]


def _name(node: ast.Call) -> str:
    if not isinstance(node.func, ast.Name):
        raise SpecError(f"expected a plain name, got '{ast.unparse(node.func)}'; try robustseg list")
    return node.func.id


def _argument(kind: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return _build(kind, node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        try:
            return _argument(kind, node.left) / _argument(kind, node.right)
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise SpecError(f"expected a fraction of two numbers, got '{ast.unparse(node)}'; try 8/255") from error
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_argument(kind, item) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise SpecError(
            f"expected a number, a quoted text or a spec, got '{ast.unparse(node)}'; try quotes around text"
        ) from error


def _check_arguments(
    function: Callable[..., Any], args: list[Any], named: dict[str, Any], spec: str, skip: int
) -> None:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [p.name for p in parameters if p.name != "rng" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for name in named:
        if name not in known and not open_ended:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.5) or known
            raise SpecError(f"expected an argument of {spec.partition('(')[0]}, got '{name}'; try {', '.join(near)}")
    try:
        bound = inspect.signature(function).bind(*[None] * skip, *args, **named, **({"rng": None} if skip else {}))
    except TypeError as error:
        raise SpecError(
            f"expected all needed arguments in '{spec}', got: {error}; try {_usage(spec, parameters)}"
        ) from error
    for p in parameters:
        value = bound.arguments.get(p.name)
        if p.name in bound.arguments and p.name in known and not _fits(value, p.annotation):
            wanted = re.sub(r"\w+\.", "", inspect.formatannotation(p.annotation))
            raise SpecError(f"expected {wanted} for {p.name} in '{spec}', got {value!r}; try {p.name}={_example(p)}")


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value fits an annotation; annotations that cannot be checked fit everything."""
    origin, inside = get_origin(wanted), get_args(wanted)
    if wanted in (inspect.Parameter.empty, Any):
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is Literal:
        return value in inside
    if origin in (tuple, list, Sequence) and inside:
        if not isinstance(value, tuple) or (origin is tuple and Ellipsis not in inside and len(value) != len(inside)):
            return False
        return all(_fits(v, inside[i] if len(inside) == len(value) else inside[0]) for i, v in enumerate(value))
    if isinstance(value, bool) and wanted in (int, float):
        return False
    try:
        return isinstance(
            value, {float: (int, float), Path: (str, Path), None: type(None)}.get(wanted, origin or wanted)
        )
    except TypeError:
        return True


def _usage(spec: str, parameters: list[inspect.Parameter]) -> str:
    needed = [p for p in parameters if p.default is p.empty and p.name != "rng" and p.kind is not p.VAR_KEYWORD]
    return f"{spec.partition('(')[0]}({', '.join(f'{p.name}={_example(p)}' for p in needed)})"


def _example(parameter: inspect.Parameter) -> str:
    default = "…" if parameter.default is parameter.empty else repr(parameter.default)
    return {"budget": "'linf:8/255'", "rms": "'8/255'", "root": "'…'"}.get(parameter.name, default)


@functools.cache
def _own_entries() -> tuple[Entry, ...]:
    package = Path(__file__).parent.parent
    return tuple(e for file in sorted(package.rglob("*.py")) for e in _entries_of(file, _module(file, package)))


def _module(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _outside_entries() -> tuple[Entry, ...]:
    found: list[Entry] = []
    for point in importlib.metadata.entry_points(group="robustseg"):
        try:
            spec = importlib.util.find_spec(point.module)  # imports the packages above it
            if spec and spec.origin and spec.origin.endswith(".py"):
                found.extend(_entries_of(Path(spec.origin), point.module))
        except Exception as error:  # whatever a foreign package does, our own names stay
            log.warning("expected the module '%s' of the entry point '%s', got: %s", point.module, point.name, error)
    return tuple(found)


def _entries_of(file: Path, module: str) -> list[Entry]:
    text = file.read_text(encoding="utf-8")
    if not any(f"@{d}(" in text for d in KINDS):
        return []
    found = []
    for node in ast.parse(text).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id in KINDS and mark.args:
                name = ast.literal_eval(mark.args[0])
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                found.append(Entry(KINDS[mark.func.id], mark.func.id, name, module, summary))
    return found
