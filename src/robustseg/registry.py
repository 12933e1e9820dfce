"""Names and spec call-trees to built objects. No torch until something is built.

A spec is a call tree in Python's syntax: `"pgd(budget='linf:8/255', steps=20)"`, `"camvid(root='…', split='test')"`,
`"multiscale(zoo:erfnet-streets, scales=(0.5, 1.0))"`. Names are looked up here, arguments are literals, fractions or
specs; nothing is evaluated. `zoo:NAME` is short for `zoo('NAME')`, and a path that ends in `.safetensors` for
`weights('PATH')`.

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
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from robustseg.records import SpecError

KINDS = {
    "attack": "perturbation",
    "noise": "perturbation",
    "corruption": "perturbation",
    "network": "network",
    "dataset": "data",
    "monitor": "monitor",
}
"""Decorator -> kind of thing it registers."""

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


def corruption(name: str) -> Callable[[Function], Function]:
    """Register `(images, *, severity, rng) -> images` as a perturbation that sees no network."""
    return _decorator("corruption", name)


def network(name: str) -> Callable[[Function], Function]:
    """Register a class or function that builds a `Network`."""
    return _decorator("network", name)


def dataset(name: str) -> Callable[[Function], Function]:
    """Register a class or function that builds a `Dataset`."""
    return _decorator("dataset", name)


def monitor(name: str) -> Callable[[Function], Function]:
    """Register a class or function that builds a `Monitor`."""
    return _decorator("monitor", name)


@dataclass(frozen=True)
class Configured:
    """A registered perturbation with its arguments: `(network, images, labels, *, rng) -> images`."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    spec: str
    sees_network: bool

    def __call__(self, network: Any, images: Any, labels: Any, *, rng: Any) -> Any:
        """Perturb; see `robustseg.types.Perturbation`."""
        head = (network, images, labels) if self.sees_network else (images,)
        return self.function(*head, rng=rng, **self.arguments)


def build(kind: str, spec: str) -> Any:
    """Build what a spec names, with the normalised spec as its attribute `spec`.

    Raises:
        SpecError: the text is no spec, the name is unknown, or an argument does not fit.
    """
    return _build(kind, parse(spec))


def parse(spec: str) -> ast.Call:
    """The call tree of a spec; a bare name is a call without arguments.

    Raises:
        SpecError: the text is no spec.
    """
    text = spec.strip()
    if re.fullmatch(r"[^'\"()]+\.safetensors", text):
        text = f"weights({text!r})"
    # name:rest outside quotes -> name('rest')
    quoted = re.split(r"('[^']*'|\"[^\"]*\")", text)
    quoted[::2] = [re.sub(r"\b([a-z_]\w*):([\w./~-]+)", r"\1('\2')", part) for part in quoted[::2]]
    try:
        node = ast.parse("".join(quoted), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise SpecError(
            f"expected a spec like \"pgd(budget='linf:8/255')\", got '{spec}'; try checking quotes and brackets"
        ) from error
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise SpecError(f"expected a name with arguments, got '{spec}'; try \"pgd(budget='linf:8/255')\"")
    return node


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
        thing = function(*args, **named)
        thing.spec = spec
        return thing
    if args:
        raise SpecError(f"expected named arguments, got '{spec}'; try {_name(node)}(budget='linf:8/255')")
    _check_arguments(function, [], named, spec, skip=3 if sees_network else 1)
    from robustseg.types import Budget, fraction  # here, so that listing needs no torch

    readers = {"budget": Budget.parse, "rms": fraction, "step_size": fraction}
    read = {name: readers.get(name, lambda same: same)(value) for name, value in named.items()}
    return Configured(function, read, spec, sees_network)


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
        return _argument(kind, node.left) / _argument(kind, node.right)
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_argument(kind, item) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
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
        inspect.signature(function).bind(*[None] * skip, *args, **named, **({"rng": None} if skip else {}))
    except TypeError as error:
        raise SpecError(
            f"expected all needed arguments in '{spec}', got: {error}; try {_usage(spec, parameters)}"
        ) from error


def _usage(spec: str, parameters: list[inspect.Parameter]) -> str:
    needed = [p.name for p in parameters if p.default is p.empty and p.name != "rng" and p.kind is not p.VAR_KEYWORD]
    example = {"budget": "'linf:8/255'", "rms": "'8/255'", "root": "'…'"}
    shown = ", ".join(f"{name}={example.get(name, '…')}" for name in needed)
    return f"{spec.partition('(')[0]}({shown})"


@functools.cache
def _own_entries() -> tuple[Entry, ...]:
    package = Path(__file__).parent
    return tuple(e for file in sorted(package.rglob("*.py")) for e in _entries_of(file, _module(file, package)))


def _module(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _outside_entries() -> tuple[Entry, ...]:
    found: list[Entry] = []
    for point in importlib.metadata.entry_points(group="robustseg"):
        spec = importlib.util.find_spec(point.value)
        if spec and spec.origin and spec.origin.endswith(".py"):
            found.extend(_entries_of(Path(spec.origin), point.value))
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
