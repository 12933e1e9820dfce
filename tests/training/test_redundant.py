"""The adaptive student leaves its start, learns the teacher's answers with other features, and resumes bit for bit."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as processes
from lightning_fabric import Fabric
from torch import Tensor
from typer.testing import CliRunner

from robustseg.core import registry
from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, SpecError
from robustseg.core.files import read_lines
from robustseg.core.spaces import CAMVID
from robustseg.core.types import Dataset, Sample
from robustseg.networks import weights
from robustseg.networks.enet import ENet
from robustseg.networks.erfnet import ERFNet
from robustseg.testing import PixelNetwork
from robustseg.training.fabric import fabric_on
from robustseg.training.matching import feature_distances, inverse_feature_matching
from robustseg.training.redundant import AdaptiveRecipe, Update, train_adaptive
from robustseg.training.redundant import finished as is_finished
from robustseg.training.resumable import Checkpoint

QUICK = AdaptiveRecipe(updates=4, batch_size=2, crop=(16, 24), scale=(1.0, 1.0), check_every=2, learning_rate=1e-3)


class Unlabelled(Dataset):
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


class Marked(Unlabelled):
    """The same names, with another pixel."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        sample.image[:, 3, 3] = 0
        return sample


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
    long = {"updates": 30, "check_every": 60, "learning_rate": 3e-3}
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


def test_a_cut_between_history_and_checkpoint_loses_and_doubles_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        pass

    def cut(checkpoint: Checkpoint, **state: Any) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", cut)
        with pytest.raises(Cut):
            run(tmp_path)
    assert [line["update"] for line in read_lines(tmp_path / "history.jsonl")] == [1, 2]
    run(tmp_path)
    assert [line["update"] for line in read_lines(tmp_path / "history.jsonl")] == [1, 2, 3, 4]


def test_the_networks_given_stay_as_they_are(tmp_path: Path) -> None:
    teacher, student = small(1), small(2).train()
    before = copy.deepcopy((teacher.state_dict(), student.state_dict()))
    run(tmp_path, teacher=teacher, student=student)
    for network, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(t, state[name]) for name, t in network.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert student.training
    assert not teacher.training


def test_batch_statistics_are_frozen_unless_in_train_mode(tmp_path: Path) -> None:
    start = small(2).state_dict()
    for train_mode in (False, True):
        run(tmp_path / str(train_mode), change={"train_mode": train_mode})
        end = state_of(tmp_path / str(train_mode))
        means = [name for name in start if name.endswith("running_mean")]
        assert all(torch.equal(start[name], end[name]) is not train_mode for name in means)
        assert not torch.equal(start["down2.norm.weight"], end["down2.norm.weight"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Update]]:
    """The folder of a finished run over two layers, with held-out data, and what it told."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder, holdout=Halves(), change={"layers": ("up2", "down1"), "updates": 3})


def test_the_file_is_a_network_that_says_where_it_is_from(finished: tuple[Path, list[Update]]) -> None:
    folder, _ = finished
    path = folder / "adaptive.safetensors"
    adaptive = registry.build("network", str(path))
    kept = state_of(folder)
    assert all(torch.equal(t, kept[name]) for name, t in adaptive.state_dict().items())
    notes = weights.notes_of(path)
    assert notes["updates"] == 3
    assert notes["recipe"]["layers"] == ["down1", "up2"]
    assert (notes["recipe"]["alpha"], notes["recipe"]["seed"]) == (0.6, 0)
    assert notes["teacher"].startswith("erfnet(classes='camvid', width=0.25, dropout=(0.1, 0.1)) (")
    assert notes["teacher"] != notes["student"]
    assert notes["holdout"] == "halves"


def test_the_history_tells_losses_distances_and_held_out_figures(finished: tuple[Path, list[Update]]) -> None:
    folder, updates = finished
    lines = list(read_lines(folder / "history.jsonl"))
    assert [line.pop("time") > 0 for line in lines] == [True] * 3
    assert lines == [dataclasses.asdict(update) for update in updates]
    assert [u.update for u in updates] == [1, 2, 3]
    assert [u.miou is None for u in updates] == [u.agreement is None for u in updates] == [True, False, False]
    for u in updates:
        assert list(u.distance) == list(u.size) == ["down1", "up2"]
        assert u.feature_term == pytest.approx(1 / (0.5 + sum(u.distance.values()) / 2), rel=0.05)
        assert u.loss == pytest.approx(0.4 * u.cross_entropy + 0.6 * u.feature_term)
    teacher, adaptive = small(1), weights.load(folder / "adaptive.safetensors")
    images = torch.stack([Halves()[i].image for i in range(5)])
    with torch.no_grad():
        same = (adaptive.predict(images) == teacher.predict(images)).float().mean()
    assert updates[-1].agreement == pytest.approx(float(same), abs=0.01)


def test_relative_distances_are_in_units_of_the_static_features(tmp_path: Path) -> None:
    last = run(tmp_path, change={"relative": True, "batch_size": 1})[-1]
    assert last.feature_term == pytest.approx(1 / (0.5 + last.distance["down2"] / last.size["down2"]), rel=1e-5)


def test_a_finished_run_goes_on_to_more_updates(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, change={"updates": 4})
    run(parts, change={"updates": 3})
    assert [u.update for u in run(parts)] == [4]
    resumed = state_of(parts)
    assert all(torch.equal(t, resumed[name]) for name, t in state_of(whole).items())
    assert run(parts) == []
    with pytest.raises(RobustsegError, match=r"expected at least the 4 updates that .* holds, got 2"):
        run(parts, change={"updates": 2})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"teacher": small(3)}, "expected teacher .* of the run in"),
        ({"student": small(3)}, "expected student .* of the run in"),
        ({"data": Unlabelled(4)}, "expected data 'unlabelled, 5 images .*got 'unlabelled, 4 images"),
        ({"data": Marked()}, "expected data 'unlabelled, 5 images with content .*got 'unlabelled, 5 images with"),
        ({"change": {"alpha": 0.5}}, "expected alpha 0.6 of the run .*got 0.5"),
        ({"change": {"layers": ("down1",)}}, r"expected layers \['down1', 'up2'\] of the run"),
        ({"fabric": Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")}, "expected precision '32-true'"),
    ],
)
def test_a_run_under_other_conditions_is_refused(
    finished: tuple[Path, list[Update]], changed: dict[str, Any], sentence: str
) -> None:
    change = {"layers": ("down1", "up2"), **changed.pop("change", {})}
    with pytest.raises(RobustsegError, match=sentence):
        run(finished[0], change=change, **{"holdout": Halves(), **changed})


def test_other_held_out_masks_or_code_are_refused(
    finished: tuple[Path, list[Update]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Turned(Halves):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return dataclasses.replace(sample, labels=sample.labels.flip(1))

    change = {"layers": ("down1", "up2"), "updates": 3}
    with pytest.raises(RobustsegError, match=r"expected held-out data 'halves, 5 images with .*got 'halves, 5 images"):
        run(finished[0], change=change, holdout=Turned())
    monkeypatch.setattr("robustseg.training.redundant.code_of", lambda network: "edited")
    with pytest.raises(RobustsegError, match=r"expected code of the teacher '' of the run in .*, got 'edited'"):
        run(finished[0], change=change, holdout=Halves())


def test_a_finished_run_is_known(finished: tuple[Path, list[Update]]) -> None:
    recipe = dataclasses.replace(QUICK, layers=("down1", "up2"), updates=3)
    given = {"teacher": small(1), "student": small(2), "data": Unlabelled(), "holdout": Halves()}
    for updates, known in ((3, True), (4, False)):
        more = dataclasses.replace(recipe, updates=updates)
        assert is_finished(folder=finished[0], recipe=more, fabric=fabric_on("cpu"), **given) is known


def test_a_training_with_labels_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_text("mine")
    with pytest.raises(RobustsegError, match=r"one with train-adaptive\.json, got 'last\.ckpt' of something else"):
        run(tmp_path)
    assert (tmp_path / "last.ckpt").read_text() == "mine"


def test_held_out_data_without_a_labelled_pixel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match="expected labelled pixels in 'unlabelled', got 5 images of void pixels"):
        run(tmp_path / "out", holdout=Unlabelled())
    assert not (tmp_path / "out").exists()


def test_images_of_any_size_and_bfloat16(tmp_path: Path) -> None:
    class Several(Unlabelled):
        spec = "several"

        def __getitem__(self, index: int) -> Sample:
            size = [(16, 24), (40, 90), (9, 7), (31, 12), (16, 24)][index]
            return Sample(torch.rand(3, *size), torch.full(size, 255), self.ids[index])

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    updates = run(tmp_path, data=Several(), change={"scale": (0.5, 2.0), "layers": ("all",)}, fabric=fabric)
    assert len(updates[0].distance) == 22
    assert set(updates[0].distance.values()) == {0.0}  # all three see the same rounded images


def test_another_student_and_a_teacher_with_other_outputs(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher, student = ENet(classes="camvid", others=1).eval(), ENet(classes="camvid", others=2).eval()
    updates = run(tmp_path, teacher=teacher, student=student, change={"layers": ("down2", "stage1")})
    assert list(updates[0].distance) == ["stage1.0", "stage1.1", "stage1.2", "stage1.3", "down2"]
    assert updates[-1].distance["down2"] > 0


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match=r"expected a teacher other than the student, got .* twice"):
        run(tmp_path, teacher=small(2))
    with pytest.raises(LabelSpaceMismatch):
        run(tmp_path, teacher=ERFNet(classes="cityscapes", width=0.25))
    with pytest.raises(RobustsegError, match="expected images to train on, got none in 'unlabelled'"):
        run(tmp_path, data=Unlabelled(0))
    with pytest.raises(SpecError, match=r"expected layers of .*got 'down4'; try all, down, up, rest, or down1, down2"):
        run(tmp_path, change={"layers": ("down4",)})
    pixel = PixelNetwork().float()
    with pytest.raises(SpecError, match="expected a student with named features, got none"):
        run(tmp_path, student=pixel, teacher=ERFNet(classes=pixel.label_space, width=0.25))
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("nonsense", "sentence"),
    [
        ({"alpha": 1.0}, "0 <= alpha < 1, got 1.0; .* nothing would move the copy off its start"),
        ({"alpha": -0.1}, "0 <= alpha"),
        ({"beta": 0.0}, "beta > 0"),
        ({"p": 0.5}, "p >= 1"),
        ({"updates": 0}, "at least one update"),
        ({"crop": (0, 24)}, "a crop of at least 1x1"),
        ({"scale": (1.5, 0.75)}, "lowest <= highest scale"),
        ({"learning_rate": 0.0}, "a learning rate > 0"),
    ],
)
def test_nonsense_recipes_are_refused(nonsense: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RobustsegError, match=sentence):
        AdaptiveRecipe(**nonsense)


def _process(rank: int, port: int, folder: str, world: int) -> None:
    import os

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", LOCAL_WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto")
    fabric.launch()
    for train_mode in (False, True):
        change = {"train_mode": train_mode, "learning_rate": 1e-2}
        run(Path(folder) / str(train_mode), teacher=small(1, 0), student=small(2, 0), change=change, fabric=fabric)


@pytest.mark.slow
def test_two_processes_finetune_like_one(tmp_path: Path) -> None:
    _process(0, 0, str(tmp_path / "one"), 1)
    processes.spawn(_process, args=(29518, str(tmp_path / "two"), 2), nprocs=2)
    one, two = state_of(tmp_path / "one" / "False"), state_of(tmp_path / "two" / "False")
    assert max(float((t - one[name]).abs().max()) for name, t in small(2, 0).state_dict().items()) > 1e-2
    assert max(float((two[name] - t).abs().float().mean()) for name, t in one.items()) < 1e-6
    # In train mode the biases before a batch norm have no gradient but rounding, of which Adam makes whole steps: they
    # part, and what the network computes does not.
    for mode in ("False", "True"):
        first, second = (list(read_lines(tmp_path / n / mode / "history.jsonl")) for n in ("one", "two"))
        for a, b in zip(first, second, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
            assert a["distance"] == pytest.approx(b["distance"], rel=1e-2, abs=1e-6)


def test_the_command_finetunes(tmp_path: Path) -> None:
    from robustseg.cli import app

    for name, network in (("teacher", small(1)), ("student", small(2))):
        weights.save(network, tmp_path / f"{name}.safetensors")
    text = f"""train-adaptive --teacher {tmp_path}/teacher.safetensors --student {tmp_path}/student.safetensors --updates 2
        --data streets(scenes=1,frames=2,size='16x32') --holdout streets(scenes=1,frames=1,size='16x32') --size 16x24
        --layers down1,up --alpha 0.5 --crop 16x24 --scale 1 1 --batch-size 2 --device cpu --out {tmp_path}/out"""
    done = CliRunner().invoke(app, text.split())
    assert done.exit_code == 0, done.output
    assert weights.notes_of(tmp_path / "out" / "adaptive.safetensors")["recipe"]["layers"] == ["down1", "up1", "up2"]
    again = CliRunner().invoke(app, [*text.split(), "--alpha", "1"])
    assert again.exit_code == 2
