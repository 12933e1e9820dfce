"""The user's code: which of it a network runs, and a digest of that as it was loaded. No torch.

A module is imported once and may be edited afterwards, so its file does not say what runs. `keep_sources` lets Python
compile the user's modules from their sources alone (cached bytecode may belong to an older one) and notes the digest of
what was compiled. Installed packages, the standard library and this package do not count: they have versions.
"""

import ast
import functools
import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from robustseg.core.errors import RobustsegError
from robustseg.core.provenance import PACKAGE, sha256

INSTALLED = {"site-packages", "dist-packages"}
OURS = PACKAGE.resolve(), Path(sysconfig.get_path("stdlib")).resolve()
TEXT = r"[\w./~ -]{1,200}"
"""A text that may name a module or a file."""
_known: dict[Path, str] = {}
"""File -> digest of what was loaded from it or, where nobody saw that, of what was found there first."""
_loaded: set[Path] = set()


class _FromSource(SourceFileLoader):
    """Compiles a module from its source and notes the digest of it."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source, file = self.get_data(path), Path(path).resolve()
        now = hashlib.sha256(source).hexdigest()
        if file not in _loaded and _known.get(file, now) != now:
            raise _edited(file)
        _loaded.add(file)
        _known[file] = now
        return self.source_to_code(source, path)


class _Finder:
    """Finds what Python's path finder does, with `_FromSource` for the user's modules."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target)
        if (
            found
            and found.origin
            and type(found.loader) is SourceFileLoader
            and _is_users(Path(found.origin).resolve())
        ):
            found.loader = _FromSource(found.loader.name, found.loader.path)
        return found


def keep_sources() -> None:
    """From now on, note what the user's modules are compiled from. A second call does nothing."""
    if _Finder not in sys.meta_path:
        place = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
        sys.meta_path.insert(place, _Finder)


def note(module: str) -> None:
    """Note what the user's code is made of, as it is now; refuse what was edited since this process loaded it.

    Call it after a network was built. Python imports a module once, so an edited file is not what the network runs.

    Args:
        module: the name of an imported module.

    Raises:
        RobustsegError: a loaded module was edited since, or another module of this name lies in the current folder.
    """
    mine, here = _file(module, []), _search(module, [os.getcwd()])
    if mine and here and mine != here:
        raise RobustsegError(
            f"expected the module '{module}' of '{here}', got that of '{mine}', which this process loaded before; "
            "try a new process, or another name"
        )
    for name, file in _parts([module]):
        now = sha256(file)
        if name in sys.modules and _known.setdefault(file, now) != now:
            raise _edited(file)
        _known[file] = now


def _edited(file: Path) -> RobustsegError:
    return RobustsegError(
        f"expected '{file}' as this run knows it, got a file that was edited since; try a new process"
    )


def code_of(*things: Any) -> str:
    """The `code_digest` of networks and perturbations: of what they were built by, of their classes, of what is in them."""
    return code_digest(list(dict.fromkeys(name for thing in things for name in _modules_behind(thing))))


def _modules_behind(thing: Any) -> Iterator[str]:
    if hasattr(thing, "modules"):  # a network: what its spec names, and the classes of its parts
        yield from (*thing.code, *(type(part).__module__ for part in thing.modules()))
        return
    yield getattr(thing, "function", thing).__module__
    for argument in getattr(thing, "arguments", {}).values():  # a perturbation may hold another
        if hasattr(argument, "function"):
            yield from _modules_behind(argument)


def code_digest(modules: Sequence[str]) -> str:
    """A digest of the user's code that a network runs: its modules and what these import, as it was loaded.

    What an import statement names counts whether or not it is loaded yet. So do modules and files that a text in the code
    names, beside the code or in the current folder: a file of settings, say. Empty where there is no user's code.

    Args:
        modules: names of imported modules, see `core.types.Network.code`.
    """
    keep_sources()
    parts = sorted(_parts(modules))
    told = "".join(f"{name}:{_known.get(file) or _known.setdefault(file, sha256(file))};" for name, file in parts)
    return hashlib.sha256(told.encode()).hexdigest()[:16] if parts else ""


def _parts(modules: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The user's modules that some modules are made of, and the files that they name: (name, file), each once."""
    waiting, seen, folders = list(modules), {"__main__"} - set(modules), [os.getcwd()]
    while waiting:
        name = waiting.pop()
        file = None if name in seen else _file(name, folders)
        seen.add(name)
        if file is None or not _is_users(file):
            continue
        yield name, file
        folders = list(dict.fromkeys((*folders, str(file.parent))))
        if file.suffix == ".py":
            waiting += _names_in(file, name, _known.get(file) or sha256(file))


def _is_users(file: Path) -> bool:
    """Whether a resolved file belongs to no installed package."""
    return not INSTALLED & set(file.parts) and not any(file.is_relative_to(folder) for folder in OURS)


def _file(name: str, folders: Sequence[str]) -> Path | None:
    """The file of a module, loaded or not, or the file of this name in one of the folders."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file).resolve() if file and Path(file).is_file() else None
    if all(part.isidentifier() for part in name.split(".")) and (found := _search(name, [*folders, *sys.path])):
        return found
    return next((place.resolve() for folder in folders if (place := Path(folder) / name).is_file()), None)


def _search(name: str, folders: Sequence[str]) -> Path | None:
    """The file of a module that is found in some folders, without importing its packages."""
    origin, parts = None, name.split(".")
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), folders)
        if spec is None:
            return None
        origin, folders = spec.origin, list(spec.submodule_search_locations or ())
    return Path(origin).resolve() if origin and Path(origin).is_file() else None


@functools.lru_cache(maxsize=4096)
def _names_in(file: Path, module: str, _: str) -> tuple[str, ...]:
    """What a file may load, wherever that stands: the modules of its import statements, and its short texts."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names = {package}
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # nothing that Python can import
        return ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module or ""]))
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(TEXT, node.value):
            names.add(node.value)
    return tuple(sorted((names | {name.rpartition(".")[0] for name in names}) - {""}))
