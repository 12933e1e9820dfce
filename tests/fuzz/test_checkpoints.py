"""Checkpoints with edited headers, metadata and bytes, against a reading of the file by `json`, `numpy` and `zipfile`."""

import json
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fuzz.harness import Edits, Refusal, answer, corpus, damaged, edits, examples, kept, tell
from robustseg.api import network
from robustseg.core import registry
from robustseg.networks.weights import load, notes_of, read_state, save

pytestmark = pytest.mark.filterwarnings("ignore")  # hypothesis', of long inputs

SPEC = "erfnet(classes=('road', 'car'), width=0.05)"
MEMORY = 2 << 30
"""What reading a file of 60 kB may take, in bytes."""
TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
ARCHITECTURES = (
    SPEC,
    "erfnet(width=0.05, classes=2)",
    "erfnet(classes=('road', 'car'), width=100000000)",
    "erfnet(classes=('road', 'car'), width=nan)",
    "erfnet(classes='/etc/passwd.txt', width=0.05)",
    "weights('film.safetensors')",
    "network.safetensors",
    "module('os:getcwd', classes=2)",
    "bit_depth(module('os:getcwd', classes=2))",
    "transformers('nobody-here/nothing')",
    "torchvision('deeplabv3_resnet50', weights='DEFAULT')",
    "smp('Unet', encoder_weights='imagenet')",
    "enet(classes=2, weights='network.safetensors')",
    "fcn8s(classes=2, width=0.02, encoder_weights='https://example.org/a.pth')",
    "multiscale(erfnet(classes=2, width=0.05), scales=(1e9,))",
    "bit_depth(" * 300 + ")" * 300,
    "erfnet(width=" + "-" * 50_000 + "1)",
    "(" * 3000,
    "pgd(budget='linf:8/255')",
    "",
    "\x00",
)
KEYS = ("format", "architecture", "names", "palette", "input", "notes")
VALUES = (
    "",
    "[]",
    "{}",
    "null",
    "robustseg-2",
    '["a","b"]',
    '["road","road"]',
    "[[0,0,0],[1,1,1]]",
    "[" * 3000,
    "[[1e9,0,0],[0,0,0]]",
    "3",
)

metadata = st.dictionaries(
    st.sampled_from(KEYS), st.one_of(st.none(), st.sampled_from(VALUES), st.text(max_size=9)), max_size=2
)
patches = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.one_of(metadata, st.sampled_from(ARCHITECTURES).map(lambda text: {"architecture": text})),
        "tensor": st.tuples(
            st.integers(0, 400),
            st.one_of(
                st.fixed_dictionaries({"dtype": st.sampled_from([*TYPES, "BF16", "F8_E4M3", "X"])}),
                st.fixed_dictionaries({"shape": st.lists(st.sampled_from([-1, 0, 1, 2, 3, 4, 2**40]), max_size=4)}),
                st.fixed_dictionaries({"data_offsets": st.lists(st.sampled_from([0, 4, 60, 2**50]), max_size=3)}),
                st.just({"name": "another"}),
                st.none(),
            ),
        ),
        "size": st.sampled_from([0, 1, 2**20, 2**40, 2**63]),
    },
)
"""Changes to a header: of the metadata, of one tensor by its position, of the length that stands before the header."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a whole `.safetensors` and a whole `.pth`; within, no connection and no large allocation is made."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    save(network(SPEC), folder / "whole.safetensors")
    torch.save({"w": torch.arange(4.0), "n": torch.tensor([3, 9])}, folder / "whole.pth")

    def refused(*words: Any) -> None:
        raise SystemError(f"a connection is made: {words[1:]}")  # no exception that a reader would expect

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refused)
        patch.setattr(socket, "getaddrinfo", refused)
        patch.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
        yield folder
        resource.setrlimit(resource.RLIMIT_AS, before)


@given(patch=patches, done=st.one_of(st.just([]), st.just([]), edits), pickled=st.integers(0, 4))
@examples(200)
def test_checkpoints(patch: dict[str, Any], done: Edits, pickled: int, base: Path, tally: Counter[str]) -> None:
    if pickled == 0:
        data = damaged((base / "whole.pth").read_bytes(), done)
        with kept("checkpoints", data, ".pth"):
            accepted = check_pickled(data, base)
            assert accepted or done, "expected a whole file to be read, got a refusal"
    else:
        data = damaged(_patched((base / "whole.safetensors").read_bytes(), patch), done)
        with kept("checkpoints", json.dumps([patch, done]), ".json"):
            accepted = check(data, base)
            assert accepted or patch or done, "expected a whole file to be read, got a refusal"
    tell(tally, accepted)


@corpus("checkpoints")
def test_checkpoints_that_failed_once(path: Path, base: Path) -> None:
    if path.suffix == ".pth":
        check_pickled(path.read_bytes(), base)
    else:
        patch, done = json.loads(path.read_text())
        check(damaged(_patched((base / "whole.safetensors").read_bytes(), patch), done), base)


def _patched(data: bytes, patch: dict[str, Any]) -> bytes:
    """A safetensors file with another header."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    for key, value in patch.get("metadata", {}).items():
        header["__metadata__"][key] = value
        if value is None:
            del header["__metadata__"][key]
    if "tensor" in patch:
        number, change = patch["tensor"]
        name = [key for key in header if key != "__metadata__"][number % (len(header) - 1)]
        entry = header.pop(name)
        if change is not None:
            header[change.get("name", name)] = {**entry, **{k: v for k, v in change.items() if k != "name"}}
    text = json.dumps(header).encode()
    return patch.get("size", len(text)).to_bytes(8, "little") + text + body


def check(data: bytes, folder: Path) -> bool:
    """Whether a file is accepted as a network; if so its classes, architecture and tensors are those in its bytes."""
    path = folder / "network.safetensors"
    path.write_bytes(data)
    answer(lambda: notes_of(path))
    built = answer(lambda: load(path))
    if isinstance(built, Refusal):
        return False
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = header.pop("__metadata__")
    assert list(built.label_space.names) == json.loads(about["names"])
    assert [list(colour) for colour in built.label_space.palette] == json.loads(about["palette"])
    assert built.spec == registry.spelled("network", about["architecture"])
    state = built.state_dict()
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        raw = np.frombuffer(data[8 + size :][start:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
        assert np.array_equal(state[name].numpy(), raw.astype(state[name].numpy().dtype), equal_nan=True), name
    assert {n for n in state if not n.endswith("num_batches_tracked")} <= header.keys()
    return True


def check_pickled(data: bytes, folder: Path) -> bool:
    """Whether a file that `torch.save` wrote is accepted; if so damage has not changed a name or a number."""
    path = folder / "weights.pth"
    path.write_bytes(data)
    state = answer(lambda: read_state(path))
    if isinstance(state, Refusal):
        return False
    assert {name: tensor.tolist() for name, tensor in state.items()} == {"w": [0.0, 1.0, 2.0, 3.0], "n": [3, 9]}
    return True
