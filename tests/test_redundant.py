"""The adaptive student leaves its start, learns the teacher's answers with other features, and resumes bit for bit."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from robustseg.networks import weights
from robustseg.networks.enet import ENet
from robustseg.networks.erfnet import ERFNet
from robustseg.records import LabelSpaceMismatch, RobustsegError, SpecError, read_lines
from robustseg.spaces import CAMVID
from robustseg.training.redundant import (
    AdaptiveRecipe,
    Update,
    feature_distances,
    inverse_feature_matching,
    layers_of,
    soft_cross_entropy,
    train_adaptive,
)
from robustseg.types import Network, Sample

QUICK = AdaptiveRecipe(updates=4, batch_size=2, crop=(16, 24), scale=(1.0, 1.0), check_every=2, learning_rate=1e-3)


class Unlabelled:
    """Small images of noise, all void."""

    spec = "unlabelled"

    def __init__(self, count: int = 5):
        self.label_space = CAMVID
        self.ids = tuple(f"frame_{i}" for i in range(count))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(index))
        return Sample(image, torch.full((16, 24), 255), self.ids[index])


class Halves(Unlabelled):
    """The same with labels: the left half is class 0, the right half class 1."""

    spec = "halves"

    def __getitem__(self, index: int) -> Sample:
        labels = torch.zeros(16, 24, dtype=torch.int64)
        labels[:, 12:] = 1
        return dataclasses.replace(super().__getitem__(index), labels=labels)


def small(seed: int, dropout: float = 0.1) -> ERFNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ERFNet(classes="camvid", width=0.25, dropout=(dropout, dropout)).eval()


def run(folder: Path, **changed: Any) -> list[Update]:
    updates: list[Update] = []
    given = {"teacher": small(1), "student": small(2), "data": Unlabelled(), "on_update": updates.append, **changed}
    recipe = dataclasses.replace(given.pop("recipe", QUICK), **given.pop("change", {}))
    train_adaptive(given.pop("teacher"), given.pop("student"), given.pop("data"), folder=folder, recipe=recipe, **given)
    return updates


def state_of(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["adaptive"]


def test_the_start_is_dead_for_the_feature_term_and_left_all_the_same(tmp_path: Path) -> None:
    student = small(2)
    adaptive = copy.deepcopy(student)
    images = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        static = student.features(images, ("down2",))
    distances = feature_distances(adaptive.features(images, ("down2",)), static).distance
    inverse_feature_matching(distances).sum().backward()
    assert all(not p.grad.any() for p in adaptive.parameters() if p.grad is not None)  # exactly zero
    updates = run(tmp_path)
    assert updates[0].distance["down2"] == 0
    assert updates[0].feature_term == 2  # 1 / beta
    assert 0 < updates[1].distance["down2"] < updates[3].distance["down2"]


def test_learns_the_answers_with_other_features(tmp_path: Path) -> None:
    long = {"updates": 60, "check_every": 60, "learning_rate": 3e-3}
    kept = run(tmp_path / "ifm", change=long)
    control = run(tmp_path / "control", change={**long, "alpha": 0.0})
    assert all(updates[-1].cross_entropy < updates[0].cross_entropy for updates in (kept, control))
    assert kept[-1].distance["down2"] > 2 * control[-1].distance["down2"]


def test_resumes_bit_for_bit(tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(update: Update) -> None:
        if update.update == 3:
            raise Cut

    for train_mode in (False, True):
        whole, parts = tmp_path / f"whole {train_mode}", tmp_path / f"parts {train_mode}"
        run(whole, change={"train_mode": train_mode})
        with pytest.raises(Cut):
            run(parts, change={"train_mode": train_mode}, on_update=cut)
        torch.rand(7)  # whatever happened in between
        assert [u.update for u in run(parts, change={"train_mode": train_mode})] == [3, 4]
        assert (whole / "adaptive.safetensors").read_bytes() == (parts / "adaptive.safetensors").read_bytes()
        first, second = ([{**line, "time": 0} for line in read_lines(f / "history.jsonl")] for f in (whole, parts))
        assert first == second
