"""Weights on disk: a network as one safetensors file that says how to rebuild it, and the zoo of such files.

The metadata holds the spec of the architecture (its arguments say the normalisation too), the class names, the palette
and free notes; the tensors are the state dict, in half precision if wanted. Nothing here runs code from a file.
"""

import ast
import difflib
import json
import os
import pickle
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from robustseg.core import registry
from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.files import write_whole
from robustseg.core.labels import LabelSpace
from robustseg.core.registry import network
from robustseg.core.types import Network

FORMAT = "robustseg-1"


def save(network: Network, path: str | Path, *, half: bool = False, **notes: Any) -> None:
    """Write a network as one safetensors file that `load` rebuilds; it is there whole or not at all.

    Args:
        network: one whose `architecture` is a spec.
        path: of the file; missing folders are made.
        half: store floating tensors as float16; `load` gives float32 back.
        notes: anything that JSON can hold, kept in the metadata (`data`, `miou`, `licence`, …).

    Raises:
        RobustsegError: no spec rebuilds the network, a weight does not fit float16, or the disk is full.
    """
    path = Path(path)
    registry.parse(network.architecture)
    if _name(network.architecture) not in (e.name for e in registry.table().values() if e.kind == "network"):
        raise RobustsegError(
            f"expected a network that a spec rebuilds, got '{network.architecture}'; "
            "try building it by \"module('package:function', classes=…)\""
        )
    tensors = {name: _stored(name, t, half) for name, t in network.state_dict().items()}
    space = network.label_space
    metadata = {
        "format": FORMAT,
        "architecture": network.architecture,
        "names": json.dumps(space.names),
        "palette": json.dumps(space.palette),
        "input": f"RGB in [0, 1]; inside the network: {_form(network)}",
        "notes": json.dumps(notes),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _in_order(to_bytes(tensors, metadata)))


def _form(network: Network) -> str:
    """What becomes of an image before the first layer."""
    form = getattr(network, "expects", None)
    named = {name: getattr(form, name, None) for name in ("mean", "std", "bgr", "scale")}
    said = [f"{name}={value!r}" for name, value in named.items() if value is not None]
    return ", ".join(said) or "no normalisation"


def _name(spec: str) -> str:
    return spec.partition("(")[0].strip()


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    # A clone a tensor: safetensors refuses tensors that share memory.
    tensor = tensor.detach().cpu().contiguous().clone()
    if not (half and tensor.is_floating_point()):
        return tensor
    stored = tensor.half()
    if not torch.isfinite(stored).all():
        raise RobustsegError(f"expected weights within the range of float16, got more in '{name}'; try half=False")
    return stored


def _in_order(file: bytes) -> bytes:
    # safetensors writes the metadata in random order; in order, the same network gives the same bytes and hash.
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + size :]


def load(path: str | Path) -> Network:
    """Rebuild the network that `save` wrote, in float32, in evaluation mode.

    Raises:
        RobustsegError: the file is missing, torn or no network of ours. LabelSpaceMismatch: its classes are not those
            of its architecture. ShapeError: its tensors do not fit.
    """
    path = _existing(path)
    if path.suffix != ".safetensors":
        read_state(path)  # says it where the file wants to run code
        raise RobustsegError(
            f"expected a .safetensors file that robustseg wrote, got the plain weights '{path}'; "
            "try naming the architecture: enet(weights='…') or module('package:function', weights='…')"
        )
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise RobustsegError(
            f"expected a network of format '{FORMAT}' in '{path}', got {metadata.get('format')!r}; try naming the "
            "architecture: enet(weights='…') or module('package:function', weights='…')"
        )
    try:
        space = LabelSpace.from_json({key: json.loads(metadata[key]) for key in ("names", "palette")})
        architecture = metadata["architecture"]
    except (KeyError, ValueError, TypeError) as error:
        raise RobustsegError(
            f"expected names, palette and architecture in the metadata of '{path}', got {error!r}; try a fresh copy"
        ) from error
    _require_harmless(architecture, path)
    built: Network = registry.build("network", architecture)
    space.require_same(built.label_space, mine=f"'{path}'", theirs=architecture)
    built.label_space = space
    load_state(built, read_state(path), path)
    built.architecture = built.spec
    return built.eval()


def _require_harmless(architecture: str, path: Path) -> None:
    calls = [n for n in ast.walk(registry.parse(architecture)) if isinstance(n, ast.Call)]
    if any(isinstance(c.func, ast.Name) and c.func.id == "module" for c in calls):
        raise RobustsegError(
            f"expected an architecture of this package in '{path}', got {architecture}, which would import code that "
            f"the file names; if you trust it, name it yourself: {architecture[:-1]}, weights='{path}')"
        )


def notes_of(path: str | Path) -> dict[str, Any]:
    """The notes that `save` was given.

    Raises:
        RobustsegError: the file is missing or torn.
    """
    return dict(json.loads(read_metadata(path).get("notes", "{}")))


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty where it has none.

    Raises:
        RobustsegError: the file is missing or torn.
    """
    path = _existing(path)
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _torn(path, error) from error


def read_state(path: str | Path) -> dict[str, Tensor]:
    """A state dict from `.safetensors`, or from what `torch.save` wrote, without running code from the file.

    A wrapper that trainings leave is taken off: one of the keys `state_dict`, `model_state_dict`, `model`. Floating
    tensors become float32.

    Raises:
        RobustsegError: the file is missing or torn, wants to run code, or holds no state dict.
    """
    path = _existing(path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                found: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError) as error:
            raise _torn(path, error) from error
    else:
        found = _unpickled_safely(path)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise RobustsegError(
            f"expected a state dict of tensors in '{path}', got {_what(found)}; try model.state_dict()"
        )
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}


def _unpickled_safely(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or path.read_bytes()[:1] == b"\x80":
            raise RobustsegError(
                f"expected a file of tensors only, got '{path}', which wants to run code when it is loaded; "
                "try torch.save(model.state_dict(), …) where it was made, or safetensors"
            ) from error
        raise _torn(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise _torn(path, error) from error


def _what(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a mapping with {', '.join(map(repr, list(found)[:3])) or 'nothing'}"
    return f"a {type(found).__name__}"


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without the leading `module.` that a data-parallel wrapper gives every name."""
    start = len("module.") if all(name.startswith("module.") for name in state) else 0
    return {name[start:]: tensor for name, tensor in state.items()}


def load_state(module: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load a state dict into a module, all of it; a `Network` keeps the path in its `files`.

    A leading `module.` of every name is taken off unless the module's own names have it.

    Raises:
        ShapeError: names or shapes do not fit.
    """
    wanted = module.state_dict()
    if not all(name.startswith("module.") for name in wanted):
        state = unwrapped(state)
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    unknown = [n for n in state if n not in wanted]
    if missing or unknown:
        which = [
            f"{len(names)} {word} ('{names[0]}', …)"
            for names, word in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        raise ShapeError(
            f"expected the {len(wanted)} tensors of {type(module).__name__} in '{path}', got {' and '.join(which)}; "
            "try the architecture and arguments that it was trained with"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise ShapeError(
                f"expected '{name}' of shape {tuple(wanted[name].shape)}, got {tuple(tensor.shape)} in '{path}'; "
                "try the classes, the number of other outputs and the width that it was trained with"
            )
    module.load_state_dict({**wanted, **state})
    if isinstance(module, Network):
        module.files = (*module.files, Path(path))


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


@network("weights")
def weights(path: str) -> Network:
    """A network from a safetensors file that `save` wrote; `PATH.safetensors` is short for it."""
    return load(path)


@network("zoo")
def zoo(name: str) -> Network:
    """A network from the zoo by its file name: `zoo:erfnet-streets`.

    Raises:
        RobustsegError: there is none of this name; near matches are named.
    """
    files = zoo_files()
    if name not in files:
        near = (
            difflib.get_close_matches(name, files, n=3, cutoff=0.4) or list(files) or ["a path to a .safetensors file"]
        )
        raise RobustsegError(
            f"expected a network of the zoo, got '{name}'; try {', '.join(near)} "
            "(zoos of other folders: ROBUSTSEG_ZOO=FOLDER)"
        )
    return load(files[name])


def zoo_files() -> dict[str, Path]:
    """Name -> file of every zoo network; the first one wins.

    Looks into this package, the folders of `ROBUSTSEG_ZOO`, `zoo/` here, and `zoo/` of the checkout this package runs from.
    """
    package = Path(__file__).parents[1] / "zoo"
    named = os.environ.get("ROBUSTSEG_ZOO", "")
    checkout = Path(__file__).parents[3] / "zoo"
    folders = [package, *(Path(part).expanduser() for part in named.split(os.pathsep) if part), Path("zoo"), checkout]
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.safetensors")) if folder.is_dir() else ():
            found.setdefault(file.stem, file)
    return found


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.is_file():
        return path
    siblings = (
        [p.name for p in path.parent.glob("*") if p.suffix in (".safetensors", ".pth", ".pt")]
        if path.parent.is_dir()
        else []
    )
    near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.4) or sorted(siblings)[:3]
    raise RobustsegError(
        f"expected a file of weights, got no file '{path}'; try {', '.join(near) or 'the path of a .safetensors file'}"
    )


def _torn(path: Path, error: Exception) -> RobustsegError:
    why = str(error).partition("\n")[0][:120]
    return RobustsegError(f"expected a whole file of weights, got a torn or foreign '{path}' ({why}); try a fresh copy")
