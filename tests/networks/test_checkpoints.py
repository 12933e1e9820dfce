"""Checkpoints of training tools: what is unambiguous loads, the rest is one sentence that says what is in the way."""

import argparse
import re
import zipfile

import pytest
import torch
from torch import nn

from robustseg.core.errors import RobustsegError
from robustseg.networks.checkpoints import load_state, read_state


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.fixture
def trained():
    torch.manual_seed(3)
    return net()


def prefixed(state, before):
    return {before + name: tensor for name, tensor in state.items()}


FORMS = {
    "plain": lambda s: s,
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "parallel, compiled": lambda s: prefixed(s, "module._orig_mod."),
    "compiled, parallel": lambda s: prefixed(s, "_orig_mod.module."),
    "compiled inside": lambda s: {n.replace("0.", "0._orig_mod.", 1): t for n, t in s.items()},
    "lightning": lambda s: {"state_dict": prefixed(s, "model."), "epoch": 3, "hyper_parameters": {"lr": 1e-3}},
    "lightning, net": lambda s: {"state_dict": prefixed(s, "net.")},
    "lightning, compiled": lambda s: {"state_dict": prefixed(s, "model._orig_mod.module."), "global_step": 9},
    "lightning, with a loss": lambda s: {"state_dict": {**prefixed(s, "model."), "criterion.weight": torch.ones(2)}},
    "model_state": lambda s: {"model_state": s, "best_score": 0.7},
    "network": lambda s: {"network": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{}]}},
    "average": lambda s: {**prefixed(s, "module."), "n_averaged": torch.tensor(5)},
    "the same twice": lambda s: {"model": s, "ema": dict(s)},
    "nested": lambda s: {"checkpoint": {"model": {"state_dict": s}}},
    "beside a loss": lambda s: {"net": s, "loss": {"weight": torch.ones(3)}},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_usual_wrappings_load(form, trained, tmp_path):
    torch.save(FORMS[form](dict(trained.state_dict())), tmp_path / "w.pth")
    fresh = net()
    load_state(fresh, tmp_path / "w.pth")
    assert all(
        torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), trained.state_dict().values(), strict=True)
    )


def test_two_networks_in_a_file_are_refused_by_name(trained, tmp_path):
    state, other = dict(trained.state_dict()), {n: t + 1 for n, t in trained.state_dict().items()}
    torch.save({"state_dict": state, "state_dict_ema": other}, tmp_path / "w.pth")
    with pytest.raises(RobustsegError, match=r"got 2, below the keys 'state_dict', 'state_dict_ema'; try torch.save"):
        load_state(net(), tmp_path / "w.pth")
    torch.save({"state_dict": {**prefixed(state, "model."), **prefixed(other, "ema.")}}, tmp_path / "w.pth")
    with pytest.raises(RobustsegError, match=r"names begin with 'model.', 'ema.'; try saving the one"):
        load_state(net(), tmp_path / "w.pth")


def test_what_does_not_fit_shows_the_difference(trained, tmp_path):
    torch.save(prefixed(dict(list(trained.state_dict().items())[:2]), "model."), tmp_path / "w.pth")
    with pytest.raises(
        RobustsegError, match=r"5 missing|missing \('0.weight', …\) and 2 unknown \('model.0.weight', …\)"
    ):
        load_state(net(), tmp_path / "w.pth")


class Whole(nn.Conv2d):
    """A class of a user."""


@pytest.mark.parametrize("content", [{"model": {}, "args": argparse.Namespace(a=1)}, Whole(3, 3, 1)])
def test_a_pickle_of_more_than_tensors_says_what_and_how_to_convert(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    named = "argparse.Namespace" if isinstance(content, dict) else r"[\w.]+\.Whole"
    with pytest.raises(RobustsegError, match=rf"with {named}, which wants to run code .*; try torch.save\(model.state"):
        read_state(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_file_is_named_so(tmp_path):
    torch.jit.save(torch.jit.trace(net().eval(), torch.rand(1, 3, 4, 4)), tmp_path / "w.pt")
    with pytest.raises(RobustsegError, match=r"got the TorchScript program .*torch.jit.load"):
        read_state(tmp_path / "w.pt")


def test_tensors_without_bytes_are_refused(tmp_path):
    for strange in (
        torch.zeros(1).half().expand(10**6, 10**6),
        torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (9, 9), check_invariants=True),
        torch.zeros(10**6, 10**6, device="meta"),
    ):
        torch.save({"a": strange}, tmp_path / "w.pth")
        with pytest.raises(RobustsegError, match=r"expected dense tensors in .*'a' of shape|torn or foreign"):
            read_state(tmp_path / "w.pth")


def test_an_archive_that_claims_more_bytes_than_it_has_is_refused(trained, tmp_path):
    torch.save({"a": torch.zeros(10**7)}, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(RobustsegError, match=re.escape("its entries claim more bytes than it has")):
        read_state(tmp_path / "bomb.pth")


def test_one_changed_bit_of_a_weight_is_refused(tmp_path):
    torch.save({"a": torch.full((8,), 7.0)}, tmp_path / "w.pth")
    data = bytearray((tmp_path / "w.pth").read_bytes())
    data[data.index(torch.full((8,), 7.0).numpy().tobytes()) + 2] ^= 1
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(
        RobustsegError, match=r"expected a whole file of weights, .*the checksum of 'w/data/0' is another"
    ):
        read_state(tmp_path / "w.pth")


def test_a_name_that_no_file_can_have_is_one_sentence():
    for name in ("a" * 5000, "a\0b", "a/" * 3000):
        with pytest.raises(RobustsegError, match="expected a file of weights, got no file"):
            read_state(name)
