"""Weights: what is saved comes back equal, and no file runs code or comes in half."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, ShapeError
from robustseg.core.labels import LabelSpace
from robustseg.core.registry import build
from robustseg.core.spaces import CAMVID
from robustseg.networks import checkpoints, weights
from robustseg.networks.adapters import adapt
from robustseg.networks.enet import ENet
from robustseg.networks.erfnet import ERFNet
from robustseg.networks.weights import load, notes_of, read_state, save, zoo_files


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.nn.init.normal_((built := ENet(classes="camvid")).classifier.weight)
    return built.eval()


@pytest.fixture
def images():
    return torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))


def test_a_network_comes_back_equal(network, images, tmp_path):
    file = tmp_path / "deep" / "enet.safetensors"
    save(network, file, data="camvid", miou=0.5)
    again = build("network", f"{file}")
    assert torch.equal(again(images), network(images))
    assert again.label_space == CAMVID
    assert again.files == (file,)
    assert again.spec == f"weights('{file}')"
    assert again.architecture == "enet(classes='camvid', others=0)"
    assert not again.training
    assert notes_of(file) == {"data": "camvid", "miou": 0.5}
    save(again, tmp_path / "again.safetensors", data="camvid", miou=0.5)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_the_metadata_say_what_becomes_of_an_image(network, tmp_path):
    save(network, tmp_path / "enet.safetensors")
    assert (
        weights.read_metadata(tmp_path / "enet.safetensors")["input"]
        == "RGB in [0, 1]; inside the network: no normalisation"
    )
    foreign = build("network", "torchvision('lraspp_mobilenet_v3_large', classes='camvid')")
    save(foreign, tmp_path / "foreign.safetensors")
    said = weights.read_metadata(tmp_path / "foreign.safetensors")["input"]
    assert said.endswith("mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), bgr=False, scale=1.0")


def test_half_precision_halves_the_file_and_loads_as_float32(network, images, tmp_path):
    save(network, tmp_path / "full.safetensors")
    save(network, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.65 * (tmp_path / "full.safetensors").stat().st_size
    stored = load_file(tmp_path / "half.safetensors")
    again = load(tmp_path / "half.safetensors")
    assert stored["classifier.weight"].dtype == torch.float16
    assert torch.equal(again.classifier.weight, stored["classifier.weight"].float())
    assert torch.allclose(again(images), network(images), rtol=0.02, atol=0.02)


def test_half_precision_refuses_what_does_not_fit(network, tmp_path):
    network.initial.norm.running_var.fill_(1e6)
    with pytest.raises(RobustsegError, match=r"range of float16, got more in 'initial.norm.running_var'"):
        save(network, tmp_path / "half.safetensors", half=True)
    assert not list(tmp_path.iterdir())


def test_own_classes_and_palette_come_back(tmp_path):
    space = LabelSpace(("road", "car's"), ((1, 2, 3), (4, 5, 6)))
    for network in (ENet(classes=space), ERFNet(classes=space, width=0.25)):
        save(network, tmp_path / "two.safetensors")
        assert load(tmp_path / "two.safetensors").label_space == space


@pytest.mark.parametrize(
    "spec", ["erfnet(classes='camvid', width=0.25)", "torchvision('lraspp_mobilenet_v3_large', classes=3)"]
)
def test_other_architectures_come_back(spec, images, tmp_path):
    network = build("network", spec).eval()
    save(network, tmp_path / "a.safetensors")
    assert torch.equal(load(tmp_path / "a.safetensors")(images), network(images))


def test_smp_and_transformers_come_back_without_their_sources(tmp_path, images):
    package = pytest.importorskip("transformers")
    pytest.importorskip("segmentation_models_pytorch")
    config = package.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=16,
        id2label={0: "road", 1: "driver's car"},
    )
    package.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    for spec in (f"transformers('{tmp_path}/model')", "smp('FPN', classes='camvid', decoder_dropout=0.1)"):
        network = build("network", spec).eval()
        save(network, tmp_path / "a.safetensors")
        again = load(tmp_path / "a.safetensors")
        assert torch.equal(again(images), network(images)), spec
        assert again.files == (tmp_path / "a.safetensors",)


def test_what_no_spec_rebuilds_is_refused(tmp_path):
    with pytest.raises(RobustsegError, match=r"a spec rebuilds, got 'adapt'; try building it by \"module"):
        save(adapt(nn.Conv2d(3, 11, 1), label_space=CAMVID), tmp_path / "a.safetensors")


def test_a_file_that_names_code_to_import_is_refused(tmp_path, monkeypatch):
    (tmp_path / "net_of_a_user.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Conv2d(3, 11, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = "module('net_of_a_user:make', classes='camvid')"
    network = build("network", spec)
    save(network, tmp_path / "own.safetensors")
    with pytest.raises(
        RobustsegError, match="would import code that the file names; if you trust it, name it yourself"
    ):
        load(tmp_path / "own.safetensors")
    again = build("network", spec[:-1] + ", weights='own.safetensors')")
    assert torch.equal(again.module.weight, network.module.weight)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("I ran",))


@pytest.mark.parametrize("new_format", [True, False])
def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path, capsys, new_format):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth", _use_new_zipfile_serialization=new_format)
    for spec in (f"enet(weights='{tmp_path}/evil.pth')", f"weights('{tmp_path}/evil.pth')"):
        with pytest.raises(RobustsegError, match=r"wants to run code when it is loaded; try torch.save") as caught:
            build("network", spec)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_bare_pickle_is_refused(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RobustsegError, match="wants to run code"):
        read_state(tmp_path / "evil.pth")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_torn_files_are_refused(network, tmp_path, share):
    save(network, tmp_path / "a.safetensors")
    torch.save(network.state_dict(), tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(RobustsegError, match="expected a whole file of weights, got a torn or foreign") as caught:
            read_state(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(RobustsegError, match="torn"):
        load(tmp_path / "a.safetensors")


def test_foreign_and_missing_files_get_one_sentence(network, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RobustsegError, match=r"network of format 'robustseg-1' in .*, got None; try naming"):
        load(tmp_path / "plain.safetensors")
    with pytest.raises(RobustsegError, match=r"got the plain weights .*; try naming the architecture"):
        load(tmp_path / "plain.pth")
    with pytest.raises(RobustsegError, match=r"state dict of tensors in .*, got a list"):
        read_state(tmp_path / "list.pth")
    with pytest.raises(RobustsegError, match=r"got no file .*plane.safetensors'; try plain.safetensors"):
        load(tmp_path / "plane.safetensors")


def test_wrappers_of_trainings_are_taken_off(network, images, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "wrapped.pth")
    again = ENet(classes="camvid", weights=tmp_path / "wrapped.pth").eval()
    assert torch.equal(again(images), network(images))


def test_tensors_and_classes_must_fit(network, tmp_path):
    save(network, tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    metadata = weights.read_metadata(tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "b.safetensors", {**metadata, "architecture": "enet(classes='cityscapes')"})
    with pytest.raises(LabelSpaceMismatch, match=r"they part at class 0: 'sky' against 'road'"):
        load(tmp_path / "b.safetensors")
    save_file(tensors, tmp_path / "b.safetensors", {**metadata, "architecture": "enet(classes='camvid', others=1)"})
    with pytest.raises(ShapeError, match=r"'classifier.weight' of shape \(16, 12, 3, 3\), got \(16, 11, 3, 3\)"):
        load(tmp_path / "b.safetensors")
    save_file(tensors, tmp_path / "b.safetensors", {**metadata, "names": "['sky'"})
    with pytest.raises(RobustsegError, match=r"names, palette and architecture in the metadata of"):
        load(tmp_path / "b.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, tmp_path / "b.safetensors", metadata)
    with pytest.raises(ShapeError, match=r"got 1 missing \('classifier.weight', …\)"):
        load(tmp_path / "b.safetensors")


def test_a_full_disk_leaves_the_old_file(network, tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    save(network, file)
    before = file.read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RobustsegError, match="No space left on device"):
        save(network, file, changed=True)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_zoo_is_here_and_where_the_variable_says(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTSEG_ZOO", str(tmp_path / "other"))
    save(network, tmp_path / "zoo" / "camvid" / "enet-here.safetensors", place="here")
    save(network, tmp_path / "other" / "enet-other.safetensors", place="other")
    save(network, tmp_path / "other" / "enet-here.safetensors", place="other")
    files = zoo_files()
    assert files["enet-here"] == tmp_path / "other" / "enet-here.safetensors", "what the variable says comes first"
    assert build("network", "zoo:enet-other").files == (tmp_path / "other" / "enet-other.safetensors",)
    assert build("network", "zoo:enet-here").spec == "zoo:enet-here"
    monkeypatch.delenv("ROBUSTSEG_ZOO")
    assert zoo_files()["enet-here"] == Path("zoo/camvid/enet-here.safetensors")
    with pytest.raises(RobustsegError, match="network of the zoo, got 'enet-her'; try enet-here"):
        build("network", "zoo:enet-her")


def test_training_starts_from_the_tensors_that_have_a_place(network, tmp_path):
    save(network, tmp_path / "enet.safetensors")
    other = ENet(classes="cityscapes")
    before = other.classifier.weight.clone()
    taken, tensors = checkpoints.start_from(other, tmp_path / "enet.safetensors")
    assert 0 < tensors - taken <= 2  # the classifier stays as it was
    theirs = network.state_dict()
    assert all(torch.equal(t, theirs[name]) for name, t in other.state_dict().items() if "classifier" not in name)
    assert torch.equal(other.classifier.weight, before)


def test_an_encoder_finds_its_place_under_another_name(tmp_path):
    def body() -> nn.Module:
        return nn.ModuleDict({f"layer{i}": nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for i in range(3)})

    encoder, whole = body(), nn.ModuleDict({"head": nn.Conv2d(3, 2, 1), "backbone": nn.ModuleDict({"encoder": body()})})
    torch.save({"state_dict": {f"module.{name}": t for name, t in encoder.state_dict().items()}}, tmp_path / "a.pth")
    taken, tensors = checkpoints.start_from(whole, tmp_path / "a.pth")
    assert tensors - taken == 2
    ours = whole["backbone"]["encoder"].state_dict()
    assert all(torch.equal(t, ours[name]) for name, t in encoder.state_dict().items())


def test_a_file_without_a_place_is_one_sentence(network, tmp_path):
    save_file({"some.bias": torch.zeros(11), "some.weight": torch.zeros(7, 7)}, tmp_path / "other.safetensors")
    with pytest.raises(
        ShapeError, match=r"expected weights in .*other.* that have a place in ENet, got none of 2; try"
    ):
        checkpoints.start_from(network, tmp_path / "other.safetensors")
