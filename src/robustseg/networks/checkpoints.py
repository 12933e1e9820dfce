"""Files of tensors, from anybody: what is in them, and how it gets into a module. Nothing here runs code from a file.

A safetensors file is read as it is, a file of `torch.save` with `weights_only=True`. What training tools put around a
state dict is taken off where that leaves one state dict that fits: a key of a dictionary (`state_dict`, `model`, …) and
what stands before every name (`module.` of data-parallel, `_orig_mod.` of compiled, `model.` of Lightning modules).
"""

import difflib
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.types import Network

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""

Renamed = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""The same tensors under other names."""

USUAL = ("state_dict", "model_state_dict", "model")
"""Keys of the state dict in what most trainings write."""


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty where it has none.

    Raises:
        RobustsegError: the file is missing or torn.
    """
    path = existing(path)
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _torn(path, error) from error


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, as its header says them; no tensor is read.

    Raises:
        RobustsegError: the file is missing or torn, or its header and its bytes do not agree.
    """
    path = existing(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, OverflowError) as error:
        raise _torn(path, error) from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file of weights; floating tensors become float32.

    Of several state dicts, the only one below a key of `USUAL` is meant.

    Raises:
        RobustsegError: the file is missing or torn, wants to run code, or holds no state dict or several.
    """
    states = _read_states(existing(path))
    usual = [key for key in USUAL if key in states]
    if len(states) > 1 and len(usual) != 1:
        raise _several(path, states)
    return _floating(states[usual[0]] if len(states) > 1 else next(iter(states.values())))


def load_state(module: nn.Module, path: str | Path, *, names: Renamed = dict) -> None:
    """Load a file of weights into a module, all of it; a `Network` keeps the path in its `files`.

    Of several state dicts in the file, the one that fits is meant. What stands before the names of a whole network,
    such as `module.` or `model._orig_mod.`, is taken off, and tensors outside that network (those of a loss, say) are
    left out.

    Args:
        names: gives a state dict the names that the module has, where the file may have others.

    Raises:
        RobustsegError: as for `read_state`. ShapeError: names or shapes do not fit, or several state dicts do.
    """
    wanted, misfit = module.state_dict(), None
    fitting: dict[str, Mapping[str, Tensor]] = {}
    states = _read_states(existing(path))
    for key, state in states.items():
        try:
            own = _named_as(wanted, names(state), path)
            require_fit(wanted, {n: tuple(tensor.shape) for n, tensor in own.items()}, path, type(module).__name__)
            fitting[key] = own
        except ShapeError as error:
            misfit = error if misfit is None or key in USUAL else misfit
    if len(fitting) > 1:
        raise _several(path, fitting)
    if misfit is not None and not fitting:
        raise misfit
    module.load_state_dict({**wanted, **_floating(next(iter(fitting.values())))})
    if isinstance(module, Network):
        module.files = (*module.files, Path(path))


def require_fit(wanted: Mapping[str, Tensor], found: Shapes, path: str | Path, name: str) -> None:
    """Raise unless a file has exactly the tensors that a module has.

    Args:
        wanted: state dict of the module, on any device. found: the shapes in the file. name: of the module.

    Raises:
        ShapeError: names or shapes do not fit.
    """
    missing = [n for n in wanted if n not in found and not n.endswith("num_batches_tracked")]
    unknown = [n for n in found if n not in wanted]
    if missing or unknown:
        which = [
            f"{len(names)} {word} ('{names[0]}', …)"
            for names, word in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        raise ShapeError(
            f"expected the {len(wanted)} tensors of {name} in '{path}', got {' and '.join(which)}; "
            "try the architecture and arguments that it was trained with"
        )
    for name, shape in found.items():
        if shape != tuple(wanted[name].shape):
            raise ShapeError(
                f"expected '{name}' of shape {tuple(wanted[name].shape)}, got {shape} in '{path}'; "
                "try the classes, the number of other outputs and the width that it was trained with"
            )


def _named_as(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | Path) -> Mapping[str, Tensor]:
    """The part of a state dict that is the whole network, under the network's own names.

    Raises:
        ShapeError: several parts are, and their tensors differ.
    """
    if not any("_orig_mod." in name for name in wanted):
        plain = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
        state = plain if len(plain) == len(state) else state  # with and without: two networks in one file
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    if not needed or all(name in state for name in needed):
        return state
    fitting: dict[str, dict[str, Tensor]] = {}
    for name in state:
        before = name.removesuffix(needed[0])
        if before.endswith(".") and all(before + other in state for other in needed):
            part = {n.removeprefix(before): tensor for n, tensor in state.items() if n.startswith(before)}
            if all(n in wanted for n in part):
                fitting[before] = part
    different = [
        part for i, part in enumerate(fitting.values()) if not i or not _equal(part, next(iter(fitting.values())))
    ]
    if len(different) > 1:
        raise ShapeError(
            f"expected one network in '{path}', got {len(fitting)}, whose names begin with "
            f"{', '.join(map(repr, fitting))}; try saving the one that you mean alone"
        )
    return different[0] if different else state


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without a leading `module.` and `_orig_mod.`, in any order, that every name has."""
    first = re.match(r"(?:module\.|_orig_mod\.)*", next(iter(state), ""))
    before = first[0] if first and all(name.startswith(first[0]) for name in state) else ""
    return {name.removeprefix(before): tensor for name, tensor in state.items()}


def start_from(module: nn.Module, path: str | Path) -> tuple[int, int]:
    """Take over from a file of weights every tensor that has a place in a module, an encoder say; the rest stays.

    A tensor has a place where name and shape agree once a leading part is taken off the names of both sides, the one
    that lets most tensors agree: `layer1.0.conv1.weight` of a ResNet finds `module.encoder.layer1.0.conv1.weight`.

    Args:
        path: as for `read_state`: safetensors, or what `torch.save` wrote.

    Returns:
        How many tensors were taken over, and how many the module has.

    Raises:
        RobustsegError: as for `read_state`. ShapeError: no weight of a convolution or linear layer has a place.
    """
    theirs, ours = read_state(path), module.state_dict()
    best: dict[str, Tensor] = {}
    for mine in _leading_parts(ours):
        for other in _leading_parts(theirs):
            named = {mine + name.removeprefix(other): t for name, t in theirs.items() if name.startswith(other)}
            fit = {name: t for name, t in named.items() if name in ours and t.shape == ours[name].shape}
            best = max(best, fit, key=len)
    if not any(tensor.ndim > 1 for tensor in best.values()):
        raise ShapeError(
            f"expected weights in '{path}' that have a place in {type(module).__name__}, got none of {len(theirs)}; "
            f"try the architecture and width that it was trained with: its first tensor is '{next(iter(theirs))}'"
        )
    module.load_state_dict({**ours, **best})
    return len(best), len(ours)


def _leading_parts(names: Mapping[str, Tensor]) -> list[str]:
    """What may stand before the names of a large part of a network: nothing, or up to three levels."""
    found = Counter(
        ".".join(name.split(".")[:level]) + "." for name in names for level in range(1, name.count(".") + 1)
    )
    return ["", *(part for part, n in found.items() if part.count(".") <= 3 and n >= len(names) / 10)]


def existing(path: str | Path) -> Path:
    """The path of a file that is there.

    Raises:
        RobustsegError: there is none; files of weights with a similar name are named.
    """
    path = Path(path).expanduser()
    try:
        if path.is_file():
            return path
        siblings = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".safetensors", ".pth", ".pt"))
    except (OSError, ValueError):  # a name that no file can have
        siblings = []
    near = difflib.get_close_matches(path.name[:255], siblings, n=3, cutoff=0.4) or siblings[:3]
    raise RobustsegError(
        f"expected a file of weights, got no file '{path}'; try {', '.join(near) or 'the path of a .safetensors file'}"
    )


def _read_states(path: Path) -> dict[str, Mapping[str, Tensor]]:
    """Every state dict in a file, by the keys that lead to it; equal ones once.

    Raises:
        RobustsegError: as for `read_state`.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                found: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError) as error:
            raise _torn(path, error) from error
    else:
        found = _unpickled_safely(path)
    states: dict[str, Mapping[str, Tensor]] = {}
    for key, state in _states_in(found):
        if not any(_equal(state, other) for other in states.values()):
            states[key] = state
    if not states:
        raise RobustsegError(
            f"expected a state dict of tensors in '{path}', got {_what(found)}; try model.state_dict()"
        )
    size = path.stat().st_size
    for state in states.values():
        for name, tensor in state.items():
            # A tensor may claim a size that its file has no bytes for.
            if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.nbytes > size:
                raise RobustsegError(
                    f"expected dense tensors in '{path}', got '{name}' of shape {tuple(tensor.shape)}, which the file "
                    "does not hold value by value; try model.state_dict() of a plain network"
                )
    return states


def _states_in(found: Any, key: str = "", depth: int = 3) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    if not isinstance(found, Mapping) or not found or not all(isinstance(name, str) for name in found):
        return
    if all(isinstance(value, Tensor) for value in found.values()):
        yield key, found
    elif depth:
        for name, value in found.items():
            yield from _states_in(value, f"{key}.{name}" if key else name, depth - 1)


def _floating(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _several(path: str | Path, states: Mapping[str, Any]) -> RobustsegError:
    keys = "".join(f"[{key!r}]" for key in next(iter(states)).split("."))
    return RobustsegError(
        f"expected one state dict in '{path}', got {len(states)}, below the keys {', '.join(map(repr, states))}; "
        f"try torch.save(torch.load('{path}'){keys}, 'one.pth'), with the key that you mean"
    )


def _unpickled_safely(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > 4 * path.stat().st_size + 2**24:
                    raise _torn(path, ValueError("its entries claim more bytes than it has"))
                if changed := archive.testzip():  # torch.load does not look
                    raise _torn(path, ValueError(f"the checksum of '{changed}' is another"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except RobustsegError:
        raise
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or path.read_bytes()[:1] == b"\x80":
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise RobustsegError(
                f"expected a file of tensors only, got '{path}'{f' with {named[1]}' if named else ''}, which wants to "
                "run code when it is loaded; try torch.save(model.state_dict(), …) where it was made, or safetensors"
            ) from error
        raise _torn(path, error) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise RobustsegError(
                f"expected a file of tensors, got the TorchScript program '{path}'; try module('package:function', "
                "classes=…) with a function that returns torch.jit.load(…), if you trust the file"
            ) from error
        raise _torn(path, error) from error
    except Exception as error:  # there is no telling what reading a torn or foreign file raises
        raise _torn(path, error) from error


def _what(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a mapping with {', '.join(map(repr, list(found)[:3])) or 'nothing'}"
    return f"a {type(found).__name__}"


def _torn(path: Path, error: Exception) -> RobustsegError:
    why = str(error).partition("\n")[0][:120]
    return RobustsegError(f"expected a whole file of weights, got a torn or foreign '{path}' ({why}); try a fresh copy")
