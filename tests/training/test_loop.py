"""Training learns, resumes bit for bit, and gives in two processes what it gives in one."""

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as processes
from lightning_fabric import Fabric
from torch import Tensor, nn

from robustseg.core.errors import LabelSpaceMismatch, RobustsegError, SpecError
from robustseg.core.files import read_lines, sole_writer
from robustseg.core.types import Dataset, Sample
from robustseg.datasets import Resized
from robustseg.networks import weights
from robustseg.networks.adapters import adapt
from robustseg.networks.enet import ENet
from robustseg.networks.erfnet import ERFNet
from robustseg.training import Adversary, Recipe, Step, resumable, run, train
from robustseg.training.fabric import fabric_on
from robustseg.training.resumable import Remembered
from robustseg.training.task import Setup

QUICK = Recipe(epochs=4, batch_size=2, crop=(16, 24), scale=(1.0, 1.0), check_every=2)


class Blocks(Dataset):
    """Four small images whose colour tells the class."""

    spec = "blocks"

    def __init__(self, count: int = 4):
        from robustseg.core.spaces import CAMVID

        self.label_space = CAMVID
        self.ids = tuple(f"block_{i}" for i in range(count))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        labels = torch.randint(4, (2, 3), generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
        noise = 0.05 * torch.rand(3, 16, 24, generator=generator)
        colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.5, 0.5, 0.5]])
        labels[0, 0] = 255
        return Sample((colours[labels.clamp_max(3)].permute(2, 0, 1) + noise).clamp(0, 1), labels, self.ids[index])


def small(dropout: float = 0.1) -> ERFNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ERFNet(classes="camvid", width=0.25, dropout=(dropout, dropout))


def weights_of(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["network"]


def test_learns_two_images(tmp_path: Path) -> None:
    still = {"scale": (1.0, 1.0), "flip": False, "colour": 0.0}
    recipe = Recipe(epochs=30, batch_size=2, crop=(16, 24), check_every=30, ema=0.9, learning_rate=2e-2, **still)
    losses: list[float] = []
    train(
        small(0), Blocks(2), holdout=Blocks(2), folder=tmp_path, recipe=recipe, on_step=lambda s: losses.append(s.loss)
    )
    (line,) = read_lines(tmp_path / "history.jsonl")
    assert losses[-1] < losses[0] / 2
    assert line["miou"] > 0.35  # four classes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `small()` under `QUICK`."""
    folder = tmp_path_factory.mktemp("finished")
    train(small(), Blocks(), holdout=Blocks(), folder=folder, recipe=QUICK)
    return folder


def test_resumes_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(step: Step) -> None:
        if step.step == 3:  # within the second epoch
            raise Cut

    with pytest.raises(Cut):
        train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK, on_step=cut)
    torch.rand(7)  # whatever happened in between
    again = train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK)
    whole, cut_run = weights_of(finished), weights_of(tmp_path)
    assert all(torch.equal(whole[name], cut_run[name]) for name in whole)
    assert (finished / again.name).read_bytes() == again.read_bytes()


class Renamed(Blocks):
    spec = "renamed"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"network": ERFNet(classes="camvid", width=0.25)}, r"expected network spec .*dropout=\(0.1, 0.1\)"),
        ({"data": Renamed()}, "expected data 'blocks, 4 images .*got 'renamed, 4 images"),
        ({"data": Blocks(5)}, "expected data 'blocks, 4 images .*got 'blocks, 5 images"),
        ({"holdout": Resized(Blocks(), (8, 12))}, "expected held-out data 'blocks, 4 .*got 'blocks at 8x12, 4 images"),
        ({"recipe": dataclasses.replace(QUICK, seed=3)}, "expected seed 0 of the run .*got 3; try another folder"),
        ({"fabric": Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")}, "expected precision '32-true'"),
    ],
)
def test_a_run_under_other_conditions_is_refused(finished: Path, changed: dict[str, Any], sentence: str) -> None:
    given = {"network": small(), "data": Blocks(), "holdout": Blocks(), "recipe": QUICK, **changed}
    with pytest.raises(RobustsegError, match=sentence):
        train(given.pop("network"), given.pop("data"), folder=finished, **given)


def test_a_torn_checkpoint_is_one_sentence(finished: Path, tmp_path: Path) -> None:
    whole = (finished / "last.ckpt").read_bytes()
    (tmp_path / "train.json").write_bytes((finished / "train.json").read_bytes())
    for torn in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "last.ckpt").write_bytes(torn)
        with pytest.raises(RobustsegError, match=r"expected a whole checkpoint, got a torn or foreign .*last\.ckpt"):
            train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK)


def test_a_folder_under_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RobustsegError, match=r"expected to make the folder .*try another --out"):
        train(small(), Blocks(), holdout=Blocks(), folder=tmp_path / "file" / "run", recipe=QUICK)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt.part").symlink_to("/dev/full")
    with pytest.raises(RobustsegError, match=r"expected to write .*last.ckpt, got 'No space left"):
        train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK)


def test_an_interruption_between_history_and_checkpoint_doubles_no_line(tmp_path: Path) -> None:
    recipe, checkpoint = dataclasses.replace(QUICK, epochs=2, check_every=1), tmp_path / "last.ckpt"
    kept: list[bytes] = []
    for _ in range(2):
        train(
            small(),
            Blocks(2),
            holdout=Blocks(2),
            folder=tmp_path,
            recipe=recipe,
            on_step=lambda step: kept.append(checkpoint.read_bytes()),
        )
        assert [line["epoch"] for line in read_lines(tmp_path / "history.jsonl")] == [1, 2]
        checkpoint.write_bytes(kept[0])  # the history tells of the second epoch, the checkpoint of the first
    assert len(kept) == 3


def test_the_loss_scale_is_kept(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    precision = fabric.strategy.precision
    scales: list[dict[str, Any]] = []
    precision.state_dict = lambda: {"scale": 8.0}  # type: ignore[method-assign]
    precision.load_state_dict = scales.append  # type: ignore[method-assign]
    for _ in range(2):
        recipe = dataclasses.replace(QUICK, epochs=1)
        train(small(), Blocks(2), holdout=Blocks(2), folder=tmp_path, recipe=recipe, fabric=fabric)
    assert scales == [{"scale": 8.0}]


def test_data_that_fill_no_batch_are_refused_or_one_batch(tmp_path: Path) -> None:
    for data, holdout in ((Blocks(0), Blocks()), (Blocks(), Blocks(0))):
        with pytest.raises(RobustsegError, match="expected labelled images, got none in 'blocks'"):
            train(small(), data, holdout=holdout, folder=tmp_path, recipe=QUICK)
    many = Fabric(accelerator="cpu", devices=3)
    with pytest.raises(RobustsegError, match="got 3 processes for batches of 2; try fewer devices"):
        train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK, fabric=many)
    steps: list[Step] = []
    recipe = dataclasses.replace(QUICK, batch_size=9, epochs=1)
    train(small(), Blocks(2), holdout=Blocks(2), folder=tmp_path, recipe=recipe, on_step=steps.append)
    assert [s.steps for s in steps] == [1]


def test_epochs_and_steps_count_from_one(tmp_path: Path) -> None:
    steps: list[Step] = []
    recipe = dataclasses.replace(QUICK, epochs=2)
    train(small(), Blocks(), holdout=Blocks(2), folder=tmp_path, recipe=recipe, on_step=steps.append)
    assert [(s.epoch, s.step, s.held_out is None) for s in steps] == [
        (1, 1, True),
        (1, 2, True),
        (2, 3, True),
        (2, 4, False),
    ]


def test_a_network_with_other_outputs_trains(tmp_path: Path) -> None:
    best = train(
        ENet(classes="camvid", others=1),
        Blocks(2),
        holdout=Blocks(2),
        folder=tmp_path,
        recipe=dataclasses.replace(QUICK, epochs=1),
    )
    assert weights.load(best).architecture == "enet(classes='camvid', others=1)"


def test_label_spaces_must_agree(tmp_path: Path) -> None:
    with pytest.raises(LabelSpaceMismatch, match="11 in blocks"):
        train(ERFNet(classes="cityscapes"), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK)


@pytest.mark.parametrize(
    ("nonsense", "sentence"),
    [
        ({"epochs": 0}, "at least one epoch"),
        ({"crop": (0, 24)}, "a crop of at least 1x1"),
        ({"scale": (1.5, 0.75)}, "lowest <= highest scale"),
        ({"scale": (0.0, 1.0)}, "0 < lowest"),
        ({"learning_rate": 0.0}, "a learning rate > 0"),
        ({"learning_rate": math.nan}, "a learning rate > 0"),
        ({"weight_decay": -1.0}, "a weight decay >= 0"),
        ({"ema": 1.0}, "0 <= ema < 1"),
        ({"colour": -0.1}, "0 <= colour"),
    ],
)
def test_nonsense_recipes_are_refused(nonsense: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RobustsegError, match=sentence):
        Recipe(**nonsense)


def _process(rank: int, port: int, folder: str, world: int, adversary: Adversary | None) -> None:
    import os

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", LOCAL_WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", precision="64-true")
    fabric.launch()
    train(
        small(0).double(),
        Doubled(),
        holdout=Doubled(),
        folder=folder,
        recipe=dataclasses.replace(QUICK, epochs=2),
        adversary=adversary,
        fabric=fabric,
    )


class Doubled(Blocks):
    """The same in float64, so that only rounding parts one process from two."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return Sample(sample.image.double(), sample.labels, sample.id)


@pytest.mark.slow
@pytest.mark.parametrize("adversary", [None, Adversary("pgd(budget='linf:8/255', steps=2)", 0.5, trades=1)])
def test_two_processes_train_like_one(adversary: Adversary | None, tmp_path: Path) -> None:
    _process(0, 0, str(tmp_path / "one"), 1, adversary)
    processes.spawn(_process, args=(29517, str(tmp_path / "two"), 2, adversary), nprocs=2)
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_synced_norm_alone_equals_batch_norm() -> None:
    from robustseg.training.synced import SyncedBatchNorm2d

    norm = nn.BatchNorm2d(3).double()
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        synced = SyncedBatchNorm2d(3).double()
        torch.testing.assert_close(synced(x), norm(x))
        torch.testing.assert_close(synced.running_var, norm.running_var)
        assert math.isclose(float(synced.num_batches_tracked), 1)
    finally:
        torch.distributed.destroy_process_group()


class WithExtras(Blocks):
    """Blocks that carry a frame and a small tensor, in the last sample no number."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        small = torch.full((3, 3), torch.nan if index == 3 else float(index))
        return dataclasses.replace(sample, extras={"next": 1 - sample.image, "intrinsics": small})


def test_what_is_remembered_comes_back_with_its_extras() -> None:
    known = Remembered(WithExtras(), ("next", "intrinsics"))
    for _ in range(2):
        again = known[1]
        torch.testing.assert_close(again.extras["next"], 1 - WithExtras()[1].image, atol=0.5 / 255, rtol=0)
        assert torch.equal(again.extras["intrinsics"], torch.ones(3, 3))
    assert Remembered(WithExtras())[3].extras == {}
    with pytest.raises(
        SpecError, match=r"expected 'previous' of each sample, got none for 'block_1' of blocks; try video"
    ):
        Remembered(WithExtras(), ("previous",))[1]
    with pytest.raises(RobustsegError, match=r"expected finite values, got NaN or infinity in 'block_3' of blocks"):
        known[3]


class Floats(Blocks):
    """Images that no 8-bit values stand for."""

    spec = "floats"

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return dataclasses.replace(sample, image=sample.image * 0.987 + 0.001)


def test_it_does_not_matter_what_fits_into_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Remembered(WithExtras(), ("next",))
    monkeypatch.setattr(resumable, "CACHE_BYTES", 0)
    unknown = Remembered(WithExtras(), ("next",))
    for index in (0, 1, 2, 0, 1):
        one, other = known[index], unknown[index]
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.extras["next"], other.extras["next"])


def test_resumes_bit_for_bit_where_the_data_exceed_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "CACHE_BYTES", 2 * 16 * 24 * (3 + 1))  # two of the four images
    recipe = dataclasses.replace(QUICK, balance=False)  # nothing reads the images in order before the first step

    class Cut(Exception):
        pass

    def cut(step: Step) -> None:
        if step.step == 5:
            raise Cut

    given: dict[str, Any] = {"holdout": Floats(), "recipe": recipe}
    best = train(small(), Floats(), folder=tmp_path / "whole", **given)
    with pytest.raises(Cut):
        train(small(), Floats(), folder=tmp_path / "cut", on_step=cut, **given)
    again = train(small(), Floats(), folder=tmp_path / "cut", **given)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert best.read_bytes() == again.read_bytes()


class Marked(Blocks):
    """Blocks of which one pixel of one mask, or of one image, is another; of the same spec and ids."""

    def __init__(self, part: str):
        super().__init__()
        self.part = part

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        getattr(sample, self.part)[..., 3, 3] = 0 if self.part == "image" else 5
        return sample


@pytest.mark.parametrize("part", ["image", "labels"])
@pytest.mark.parametrize("name", ["data", "holdout"])
def test_other_images_or_masks_of_the_same_names_are_refused(finished: Path, name: str, part: str) -> None:
    given = {"data": Blocks(), "holdout": Blocks(), name: Marked(part)}
    sentence = r"expected (held-out )?data 'blocks, 4 images with content \w+' of the run in .*, got 'blocks, 4"
    with pytest.raises(RobustsegError, match=sentence):
        train(small(), given["data"], holdout=given["holdout"], folder=finished, recipe=QUICK)


def test_other_start_weights_or_code_are_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = small()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(RobustsegError, match=r"expected start weights '\w+' of the run in .*, got '\w+'; try another"):
        train(other, Blocks(), holdout=Blocks(), folder=finished, recipe=QUICK)
    monkeypatch.setattr("robustseg.training.run.code_of", lambda network: "edited")
    with pytest.raises(RobustsegError, match=r"expected code of the network '' of the run in .*, got 'edited'"):
        train(small(), Blocks(), holdout=Blocks(), folder=finished, recipe=QUICK)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_a_finished_run_is_left_as_it_is(finished: Path) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    steps: list[Step] = []
    best = train(small(), Blocks(), holdout=Blocks(), folder=finished, recipe=QUICK, on_step=steps.append)
    assert (best, steps) == (finished / "best.safetensors", [])
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before
    setup = Setup(small(), Blocks(), Blocks(), QUICK, fabric_on("cpu"))
    assert run.finished(setup, finished)
    assert not run.finished(setup, finished / "other")
    with pytest.raises(RobustsegError, match="expected seed 0 of the run"):
        run.finished(setup._replace(recipe=dataclasses.replace(QUICK, seed=3)), finished)


@pytest.mark.parametrize("name", ["best.safetensors", "last.ckpt", "history.jsonl"])
def test_files_of_something_else_are_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RobustsegError, match=f"one with train.json, got '{name}' of something else"):
        train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_one_training_at_a_time_in_a_folder(finished: Path) -> None:
    with ThreadPoolExecutor(1) as other, sole_writer(finished):
        refused = other.submit(train, small(), Blocks(), holdout=Blocks(), folder=finished, recipe=QUICK)
        with pytest.raises(RobustsegError, match="another run that writes there"):
            refused.result()


def test_an_interruption_before_the_first_checkpoint_leaves_the_folder_free(tmp_path: Path) -> None:
    def cut(step: Step) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK, on_step=cut)
    other = dataclasses.replace(QUICK, learning_rate=2e-3, epochs=1, check_every=1)
    assert train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=other).is_file()


class Void(Blocks):
    spec = "void"

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return Sample(sample.image, torch.full_like(sample.labels, 255), sample.id)


def test_data_without_a_labelled_pixel_stop_a_training_before_its_first_step(tmp_path: Path) -> None:
    for data, holdout in ((Blocks(), Void()), (Void(), Blocks())):
        with pytest.raises(
            RobustsegError, match="expected labelled pixels in 'void', got 4 images of void pixels only"
        ):
            train(small(), data, holdout=holdout, folder=tmp_path / "run", recipe=QUICK)
        assert not (tmp_path / "run").exists()


def test_the_best_finite_weights_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.25, math.nan])
    monkeypatch.setattr("robustseg.training.labels.miou_on", lambda *_: next(values))
    steps: list[Step] = []
    best = train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK, on_step=steps.append)
    assert weights.notes_of(best)["holdout_miou"] == 0.25
    assert steps[-1].held_out is not None
    assert steps[-1].held_out.warning == "not finite, so these weights are not kept"


def test_no_finite_measurement_is_an_error_and_weights_that_are_no_numbers_rank_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(average: nn.Module, *_: object) -> float:
        next(average.parameters()).data.fill_(math.nan)
        return 0.5  # what a network of NaN could be counted as

    monkeypatch.setattr("robustseg.training.labels.miou_on", broken)
    for _ in range(2):  # the second time the run is finished
        with pytest.raises(RobustsegError, match="expected a finite measurement on 'blocks', got none in 4 epochs"):
            train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK)
    assert not (tmp_path / "best.safetensors").exists()


class Pooled(nn.Module):
    """Batch norm of one value a channel and image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(3), nn.Conv2d(3, 11, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images + self.norm(images.mean((2, 3), keepdim=True)))


def test_a_batch_norm_of_one_value_is_one_sentence(tmp_path: Path) -> None:
    one, network = dataclasses.replace(QUICK, batch_size=1), adapt(Pooled(), label_space=Blocks().label_space)
    sentence = (
        r"for batch norm, got 1 image a batch \(Expected more than 1 value [^()]*\(\[1, 3, 1, 1\]\)\); try a batch size"
    )
    with pytest.raises(RobustsegError, match=sentence):
        train(network, Blocks(), holdout=Blocks(), folder=tmp_path, recipe=one)
