"""What must be known to repeat a run: commit, versions, device, the hashes of its files."""

import functools
import hashlib
import os
import platform
import subprocess
import sys
import time
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


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hex; a file is read again only after it was written."""
    known = os.stat(path)
    fresh = abs(time.time_ns() - known.st_ctime_ns) < 10**8  # clocks of files are coarse: it may be written once more
    read = _sha256.__wrapped__ if fresh else _sha256
    return read(str(path), known.st_ctime_ns, known.st_mtime_ns, known.st_size, known.st_ino)


@functools.lru_cache(maxsize=1 << 16)
def _sha256(path: str, *_: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
