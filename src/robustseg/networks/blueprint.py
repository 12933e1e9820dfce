"""What the metadata of a file of weights may ask for: a built-in architecture that is exactly as large as the file.

A file names the architecture that its tensors belong to, and files come from strangers. So before anything is built:
only architectures of this package are allowed, none that reads another file, imports code or downloads; arguments are
short texts and numbers of bounded size. Then the architecture is built without memory (on the device `meta`), which
ends as soon as it has more tensors than the file, and its names and shapes are compared with those of the file.
"""

import ast
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as modules
from torch.overrides import TorchFunctionMode

from robustseg.core import registry
from robustseg.core.errors import RobustsegError, SpecError, message_of, readable, users_code
from robustseg.core.labels import LabelSpace
from robustseg.core.spaces import KNOWN
from robustseg.networks.checkpoints import read_shapes, require_fit

PARTS, NUMBER, ITEMS = 16, 2**16, 4096
"""The most networks inside one another, the largest number, and the longest list that a file may ask for."""

ELSEWHERE = ("module", "weights", "zoo")
"""Networks that import code or read another file."""

OUTSIDE = re.compile(r"pretrain|weights|checkpoint|file|url|hub|repo|cache_dir|auto_map")
"""In the names of arguments that may read a file or go online."""

WORD = re.compile(r"[\w.+ -]{0,100}")


def require_harmless(architecture: str, space: LabelSpace, path: Path) -> None:
    """Raise unless the architecture that a file names is a built-in one that fits the file; nothing large is allocated.

    Args:
        architecture: the spec in the metadata. space: the classes in the metadata. path: of the file.

    Raises:
        RobustsegError: it names code, another file or a download, or it cannot be built. LabelSpaceMismatch,
            ShapeError: it has other classes or tensors than the file.
    """
    _require_built_in(architecture, path)
    shapes = read_shapes(path)
    what = f"the architecture that '{path}' names ({readable(architecture, 200)}) to build"
    with users_code(what, "a fresh copy of the file"), _on_paper(2 * len(shapes) + 100):
        built = registry.build("network", architecture)
    space.require_same(built.label_space, mine=f"'{path}'", theirs=architecture)
    require_fit(built.state_dict(), shapes, path, type(built).__name__)


def _require_built_in(architecture: str, path: Path) -> None:
    calls = [node for node in ast.walk(registry.parse(architecture)) if isinstance(node, ast.Call)]
    known = {entry.name for entry in registry.table().values() if entry.kind == "network" and _ours(entry.module)}
    for call in calls:
        name = call.func.id if isinstance(call.func, ast.Name) else ast.unparse(call.func)
        if name == "module":
            raise RobustsegError(
                f"expected an architecture of this package in '{path}', got {architecture}, which would import code "
                f"that the file names; if you trust it, name it yourself: {architecture[:-1]}, weights='{path}')"
            )
        if name not in known or name in ELSEWHERE:
            raise RobustsegError(
                f"expected an architecture of this package in '{path}', got '{name}'; try naming the architecture "
                "yourself, with weights='FILE'"
            )
    if len(calls) > PARTS:
        raise RobustsegError(f"expected at most {PARTS} networks in the architecture of '{path}', got {len(calls)}")
    named = registry.parse(registry.spelled("network", architecture))
    for call in (node for node in ast.walk(named) if isinstance(node, ast.Call)):
        if call.args:
            raise RobustsegError(f"expected named arguments in the architecture of '{path}', got {ast.unparse(call)}")
        for keyword in call.keywords:
            if not isinstance(keyword.value, ast.Call):
                _require_small(str(keyword.arg), _literal(keyword.value, path), path)


def _literal(node: ast.expr, path: Path) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise _refused(path, "an argument", ast.unparse(node)) from error


def _ours(module: str) -> bool:
    return module.startswith(f"{__name__.partition('.')[0]}.")


def _require_small(name: str, value: Any, path: Path) -> None:
    """Raise unless an argument is a number or a text that cannot mean a file, a download or a lot of memory."""
    if name == "config":
        try:
            value = json.loads(str(value))
        except (ValueError, RecursionError) as error:
            raise SpecError(
                f"expected a config as JSON in '{path}', got {message_of(error)}; try a fresh copy"
            ) from error
    waiting = [(name, value)]
    while waiting:
        key, found = waiting.pop()
        if isinstance(found, dict):
            waiting += [(str(k), v) for k, v in found.items()]
        elif isinstance(found, (list, tuple)) and len(found) <= ITEMS:
            waiting += [(key, v) for v in found]
        elif found is None or isinstance(found, bool):
            if found and OUTSIDE.search(key):
                raise _refused(path, key, found)
        elif isinstance(found, (int, float)):
            if not abs(found) <= NUMBER and not (name == "thresholds" and found == float("inf")):
                raise _refused(path, key, found)
        elif not isinstance(found, str) or not _harmless(name, key, found, listed=found is not value):
            raise _refused(path, key, found)


def _harmless(name: str, key: str, text: str, *, listed: bool) -> bool:
    if name == "classes":
        return listed or text in KNOWN  # names in a list are any text; a name alone may be a file
    if name == "condition" or key in ("_name_or_path", "id2label", "label2id") or key.isdigit():
        return True  # notes
    return not OUTSIDE.search(key) and bool(WORD.fullmatch(text))


def _refused(path: Path, key: str, value: Any) -> RobustsegError:
    return RobustsegError(
        f"expected an architecture in '{path}' that reads no other file and is of bounded size, got {key}="
        f"{readable(repr(value), 100)}; try naming the architecture yourself, if you trust it"
    )


class _ReadableOnPaper(TorchFunctionMode):
    """`linspace`, whose values some constructors read, stays on the CPU where it is short."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        steps = (kwargs or {}).get("steps", args[2] if len(args) > 2 else 0)
        if func is torch.linspace and steps <= ITEMS:
            return func(*args, **{**(kwargs or {}), "device": "cpu"})
        return func(*args, **(kwargs or {}))


@contextmanager
def _on_paper(most: int) -> Iterator[None]:
    """Within: modules are made without memory, and no more than `most` parameters, and as many modules, in all."""
    count = {"modules": 0, "parameters": 0}

    def counting(what: str) -> Any:
        def hook(*_: Any) -> None:
            count[what] += 1
            if count[what] > (most if what == "parameters" else 10 * most):
                raise RobustsegError(
                    f"expected at most {most} tensors, as the file has about, got more; try a fresh copy"
                )

        return hook

    hooks = (
        modules.register_module_parameter_registration_hook(counting("parameters")),
        modules.register_module_module_registration_hook(counting("modules")),
    )
    try:
        with torch.device("meta"), _ReadableOnPaper():
            yield
    finally:
        for hook in hooks:
            hook.remove()
