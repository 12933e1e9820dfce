"""Weights on disk: a network as one safetensors file that says how to rebuild it, and the zoo of such files.

The metadata holds the spec of the architecture (its arguments say the normalisation too), the class names, the palette
and free notes; the tensors are the state dict, in half precision if wanted. Nothing here runs code from a file.
"""

import difflib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from robustseg.core import registry
from robustseg.core.errors import RobustsegError
from robustseg.core.files import write_whole
from robustseg.core.labels import LabelSpace
from robustseg.core.registry import network
from robustseg.core.types import Network
from robustseg.networks.blueprint import require_harmless
from robustseg.networks.checkpoints import existing, load_state, read_metadata, read_state

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
    path = existing(path)
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
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise RobustsegError(
            f"expected names, palette and architecture in the metadata of '{path}', got {error!r}; try a fresh copy"
        ) from error
    require_harmless(architecture, space, path)
    built: Network = registry.build("network", architecture)
    built.label_space = space
    load_state(built, path)
    built.architecture = built.spec
    return built.eval()


def notes_of(path: str | Path) -> dict[str, Any]:
    """The notes that `save` was given.

    Raises:
        RobustsegError: the file is missing or torn.
    """
    try:
        return dict(json.loads(read_metadata(path).get("notes", "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise RobustsegError(f"expected notes as JSON in '{path}', got {error!r}; try a fresh copy") from error


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
