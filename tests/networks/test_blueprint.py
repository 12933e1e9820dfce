"""Metadata from strangers: a file builds a built-in architecture of its own size, or nothing."""

import json
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, ShapeError
from robustseg.core.registry import build
from robustseg.networks import blueprint, weights


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    weights.save(build("network", "erfnet(classes=3, width=0.125)"), path)
    return path


@pytest.fixture
def alone(monkeypatch):
    """No connection and no large tensor: both fail the test."""

    def connecting(*address):
        pytest.fail(f"a connection to {address}")

    monkeypatch.setattr(socket, "getaddrinfo", connecting)
    monkeypatch.setattr(socket.socket, "connect", connecting)


def named(good, tmp_path, architecture, **metadata):
    path = tmp_path / "evil.safetensors"
    save_file(load_file(good), path, {**weights.read_metadata(good), "architecture": architecture, **metadata})
    return path


DEEP = json.dumps({"model_type": "segformer", "depths": [10**6, 1, 1, 1]})
PRETRAINED = json.dumps({"model_type": "upernet", "use_pretrained_backbone": True, "backbone": "nobody/nothing"})
REMOTE = json.dumps({"model_type": "segformer", "auto_map": {"AutoConfig": "nobody/nothing--a.B"}})


@pytest.mark.parametrize(
    "architecture",
    [
        "weights('evil.safetensors')",
        "evil.safetensors",
        "zoo:erfnet-streets",
        "multiscale(evil.safetensors)",
        "multiscale(weights('evil.safetensors'))",
        "module('os:getcwd', classes=3)",
        "multiscale(module('os:getcwd', classes=3))",
        "erfnet(" * 1500 + ")" * 1500,
        "multiscale(" * 18 + "erfnet(classes=3)" + ")" * 18,
        "vote(" + "erfnet(classes=3), " * 50 + ")",
        "erfnet(width=" + "-" * 40000 + "1)",
        "erfnet(classes=3, width=100000000)",
        "erfnet(classes=3, width=16)",
        "erfnet(classes=1000000000)",
        "erfnet(classes=-3)",
        "erfnet(classes='/etc/passwd.txt')",
        "erfnet(classes='classes.json')",
        "erfnet(classes=3, width=1e400)",
        "erfnet(*[3])",
        "erfnet(**{'classes': 3})",
        "enet(classes=3, weights='other.pth')",
        "fcn8s(classes=3, encoder_weights='imagenet')",
        "multitask(classes=3, encoder_weights='imagenet')",
        "transformers('nobody-here/nothing')",
        "transformers(name='nobody-here/nothing')",
        f"transformers(config='{PRETRAINED}', classes=3)",
        f"transformers(config='{REMOTE}', classes=3)",
        f"transformers(config='{DEEP}', classes=3)",
        "transformers(config='" + "[" * 20000 + "', classes=3)",
        "transformers(config='5', classes=3)",
        "torchvision('fcn_resnet50', weights='DEFAULT')",
        "smp('Unet', classes=3, encoder_weights='imagenet')",
        "smp('Unet', classes=3, encoder='tu-hf_hub:nobody/nothing')",
        "smp('Unet', classes=3, encoder='tu-resnet18', pretrained=True)",
        "smp('Unet', classes=3, encoder='tu-resnet18', checkpoint_path='/etc/passwd')",
        "smp('Unet', classes=3, decoder_channels=(60000, 60000, 60000, 60000, 60000))",
        "",
        "nothing(classes=3)",
    ],
    ids=lambda text: text[:60],
)
def test_metadata_that_asks_for_more_than_the_file_is_refused(architecture, good, tmp_path, monkeypatch, alone):
    monkeypatch.chdir(tmp_path)
    path = named(good, tmp_path, architecture)
    with pytest.raises(RobustsegError) as caught:
        weights.load(path)
    assert len(str(caught.value)) < 1100
    assert "\n" not in str(caught.value)


def test_no_tensor_is_made_before_the_shapes_agree(good, tmp_path, monkeypatch):
    made = []

    def building(kind, spec):
        network = build(kind, spec)
        made.append({t.device.type for t in network.state_dict().values()})
        return network

    monkeypatch.setattr(blueprint.registry, "build", building)
    with pytest.raises(ShapeError, match="try the classes, the number of other outputs and the width"):
        weights.load(named(good, tmp_path, "erfnet(classes=3, width=16)"))
    assert made == [{"meta"}]


def test_the_classes_of_file_and_architecture_must_agree(good, tmp_path):
    with pytest.raises(LabelSpaceMismatch, match="expected one label space"):
        weights.load(named(good, tmp_path, "erfnet(classes=4, width=0.125)"))


def test_building_ends_once_there_are_more_tensors_than_in_the_file():
    with pytest.raises(RobustsegError, match="at most 10 tensors"), blueprint._on_paper(10):
        nn.ModuleList(nn.Linear(2, 2) for _ in range(100))
    assert nn.Linear(2, 2).weight.device.type == "cpu"


@pytest.mark.parametrize(
    "header", [b"\xff" * 8, (10**15).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"{}", b"", b"\0" * 8]
)
def test_headers_that_lie_are_refused(header, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(header + b"x" * 20)
    with pytest.raises(RobustsegError, match="expected"):
        weights.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [([4], [0, 8]), ([2], [0, 10**12]), ([-2], [0, 8]), ([10**9, 10**9], [0, 8]), ([2], [8, 0]), ([2**63], [0, 8])],
)
def test_tensors_that_the_file_has_no_bytes_for_are_refused(shape, offsets, good, tmp_path):
    metadata = weights.read_metadata(good)
    head = {"__metadata__": metadata, "a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
    text = json.dumps(head).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"x" * 8)
    with pytest.raises(RobustsegError, match="torn or foreign"):
        weights.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("key", ["names", "palette", "notes"])
def test_metadata_of_a_thousand_brackets_is_refused(key, good, tmp_path):
    path = named(good, tmp_path, "erfnet(classes=3, width=0.125)", **{key: "[" * 100_000})
    with pytest.raises(RobustsegError, match=r"expected (names|notes)"):
        weights.notes_of(path) if key == "notes" else weights.load(path)


@pytest.mark.parametrize(
    "spec", ["multiscale(erfnet(classes=3, width=0.125))", "smp('Unet', encoder='mit_b0', classes=3)"]
)
def test_what_robustseg_writes_still_loads(spec, tmp_path, alone):
    if spec.startswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    network = build("network", spec).eval()
    weights.save(network, tmp_path / "a.safetensors")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(weights.load(tmp_path / "a.safetensors")(images), network(images))
