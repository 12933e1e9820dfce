"""What must be known to repeat a run: commit, versions, device, the hashes of its files."""

import ast
import functools
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustseg.core.version import __version__

if TYPE_CHECKING:
    from torch import device as Device

    from robustseg.core.types import Network
else:
    Device = Network = Any  # torch is loaded where it is needed, so that records can be read without it

PACKAGE = Path(__file__).parent.parent


def commit() -> str | None:
    """The commit of the source tree that runs, with '+' where it has changes; None outside a checkout."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]  # not somebody else's checkout around us
        subprocess.run(tracked, capture_output=True, text=True, check=True)
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    import torch

    return {"robustseg": __version__, "torch": torch.__version__, "python": platform.python_version()}


def device_name(device: Device) -> str:
    """For example `cpu (2 threads)` or `cuda (NVIDIA H200)`."""
    import torch

    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({torch.get_num_threads()} threads)"


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes: of the GPU where one is used, else of the machine."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def digest(network: Network) -> str:
    """A short digest of what a network computes with: its classes in code, its label space, parameters and buffers.

    Two networks of one spec with other weights have other digests, whether or not they come from files.
    """
    import torch

    told = hashlib.sha256()
    for name, module in network.named_modules():
        told.update(f"{name}:{type(module).__qualname__};".encode())
    told.update("|".join(network.label_space.names).encode())
    for name, tensor in network.state_dict().items():
        told.update(f"{name}:{tensor.dtype}{tuple(tensor.shape)};".encode())
        told.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return told.hexdigest()[:16]


def code_digest(modules: Sequence[str]) -> str:
    """A digest of the user's code that a network runs: its modules and what these import from the same folder.

    Call it after a first forward pass, so that what a network imports late is loaded. Installed packages and this one
    do not count: their versions are recorded. Empty without modules.

    Args:
        modules: names of imported modules, see `core.types.Network.code`.
    """
    told, waiting, seen = hashlib.sha256(), list(modules), set[str]()
    top = tuple(folder for name in modules if (folder := _top(name)))
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in seen or file is None or not any(file.is_relative_to(folder) for folder in top):
            continue
        if file.is_relative_to(PACKAGE) or {"site-packages", "dist-packages"} & set(file.parts):
            continue
        seen.add(name)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [name.rpartition(".")[0], *_imported(file, package)]
    for name in sorted(seen):
        told.update(f"{name}:{sha256(str(_file(name)))};".encode())
    return told.hexdigest()[:16] if seen else ""


def _file(name: str) -> Path | None:
    """The source of a loaded module."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return Path(file).resolve() if file and Path(file).is_file() else None


def _top(name: str) -> Path | None:
    """The folder that holds a module's package or, of a module outside any, the folder of its file."""
    file = _file(name)
    return file and file.parents[name.count(".") + (file.name == "__init__.py")]


def _imported(file: Path, package: str) -> set[str]:
    """The names that the import statements of a file may load, wherever they stand."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module or ""]))
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names | {name.rpartition(".")[0] for name in names}


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hex; a file is read again only after it was written."""
    known = os.stat(path)
    return _sha256(str(path), known.st_mtime_ns, known.st_size, known.st_ino)


@functools.lru_cache(maxsize=1 << 16)
def _sha256(path: str, *_: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
