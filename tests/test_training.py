"""Training learns, resumes bit for bit, and gives in two processes what it gives in one."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as processes
from lightning_fabric import Fabric
from torch import Tensor, nn

from robustseg.networks.erfnet import ERFNet
from robustseg.records import LabelSpaceMismatch, RobustsegError, read_lines
from robustseg.training import Recipe, Step, train
from robustseg.types import Sample

QUICK = Recipe(epochs=4, batch_size=2, crop=(16, 24), scale=(1.0, 1.0), check_every=2)


class Blocks:
    """Four small images whose colour tells the class."""

    spec = "blocks"

    def __init__(self, count: int = 4):
        from robustseg.spaces import CAMVID

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
    recipe = Recipe(epochs=60, batch_size=2, crop=(16, 24), check_every=60, ema=0.9, learning_rate=1e-2, **still)
    losses: list[float] = []
    train(
        small(0), Blocks(2), holdout=Blocks(2), folder=tmp_path, recipe=recipe, on_step=lambda s: losses.append(s.loss)
    )
    (line,) = read_lines(tmp_path / "history.jsonl")
    assert losses[-1] < losses[0] / 2
    assert line["miou"] > 0.5


def test_resumes_bit_for_bit(tmp_path: Path) -> None:
    best = train(small(), Blocks(), holdout=Blocks(), folder=tmp_path / "whole", recipe=QUICK)

    class Cut(Exception):
        pass

    def cut(step: Step) -> None:
        if step.step == 3:  # within the second epoch
            raise Cut

    with pytest.raises(Cut):
        train(small(), Blocks(), holdout=Blocks(), folder=tmp_path / "cut", recipe=QUICK, on_step=cut)
    torch.rand(7)  # whatever happened in between
    again = train(small(0.1), Blocks(), holdout=Blocks(), folder=tmp_path / "cut", recipe=QUICK)
    whole, cut_run = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut_run[name]) for name in whole)
    assert best.read_bytes() == again.read_bytes()


def test_another_recipe_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK)
    with pytest.raises(RobustsegError, match="another folder"):
        train(small(), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=dataclasses.replace(QUICK, seed=3))


def test_label_spaces_must_agree(tmp_path: Path) -> None:
    with pytest.raises(LabelSpaceMismatch, match="11 in blocks"):
        train(ERFNet(classes="cityscapes"), Blocks(), holdout=Blocks(), folder=tmp_path, recipe=QUICK)


def test_nonsense_recipes_are_refused() -> None:
    with pytest.raises(RobustsegError, match="at least one epoch"):
        Recipe(epochs=0)


def _process(rank: int, port: int, folder: str, world: int) -> None:
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
        fabric=fabric,
    )


class Doubled(Blocks):
    """The same in float64, so that only rounding parts one process from two."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return Sample(sample.image.double(), sample.labels, sample.id)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    _process(0, 0, str(tmp_path / "one"), 1)
    processes.spawn(_process, args=(29517, str(tmp_path / "two"), 2), nprocs=2)
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
