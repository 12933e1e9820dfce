"""Identity: what changes between runs or while one goes gives new numbers or a refusal, never an old number."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from commands import run
from robustseg import adapt
from robustseg.core import code, registry
from robustseg.core.errors import RobustsegError
from robustseg.core.labels import IGNORE
from robustseg.core.types import Dataset, Sample
from robustseg.evaluation import run as evaluation
from robustseg.evaluation.run import Conditions, evaluate
from robustseg.results.current import current
from robustseg.results.record import read_records
from robustseg.testing import SmallNetwork, gray_space
from trees import folder as tree

FGSM = "fgsm(budget='linf:8/255')"


class Kept(Dataset):
    """Four images in memory, which a test may change."""

    spec, label_space = "kept", gray_space(4)
    ids = tuple(f"a_{i}" for i in range(4))

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand((4, 3, 8, 8), generator=generator)
        self.labels = torch.randint(4, (4, 8, 8), generator=generator)
        self.labels[:, 0] = IGNORE

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index].clone(), self.labels[index].clone(), self.ids[index])


def small() -> SmallNetwork:
    return SmallNetwork().float()


@pytest.mark.parametrize("what", ["images", "labels"])
def test_images_in_memory_that_change_while_a_run_goes_are_refused(tmp_path: Path, what: str) -> None:
    data = Kept()
    before = evaluate(small(), Kept(), folder=tmp_path / "whole", conditions=Conditions(batch_size=1))

    def change(progress: evaluation.Progress) -> None:
        if progress.done == 2:
            getattr(data, what)[2, ..., 4:] = 1

    with pytest.raises(
        RobustsegError, match="expected kept as it was when the run began, got another image or mask 'a_2'"
    ):
        evaluate(small(), data, folder=tmp_path / "run", conditions=Conditions(batch_size=1), on_batch=change)
    assert not (tmp_path / "run" / "records.jsonl").exists()
    again = evaluate(small(), Kept(), folder=tmp_path / "run", conditions=Conditions(batch_size=1))
    assert again.counts == before.counts, "what was counted before the change is sound"


def test_images_that_differ_at_each_reading_are_refused() -> None:
    class Augmented(Kept):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return Sample(sample.image.roll(int(torch.randint(1, 5, ())), 2), sample.labels, sample.id)

    with pytest.raises(RobustsegError, match="the same whenever it is read"):
        evaluate(small(), Augmented())


def test_images_in_memory_that_change_between_runs_are_measured_anew(tmp_path: Path) -> None:
    data = Kept()
    before = evaluate(small(), data, folder=tmp_path)
    data.labels[1:, 1:] = 0
    assert evaluate(small(), data, folder=tmp_path).counts != before.counts


def test_code_of_an_adapted_module_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights stay the same when only `forward` changes."""
    monkeypatch.setattr(code, "code_digest", lambda modules: "one" if __name__ in modules else "")
    network = adapt(Mine(), label_space=gray_space(4))
    evaluate(network, Kept(), folder=tmp_path)
    assert read_records(tmp_path)[0].code == "one"
    monkeypatch.setattr(code, "code_digest", lambda modules: "two" if __name__ in modules else "")
    evaluate(network, Kept(), folder=tmp_path)
    assert [r.code for r in read_records(tmp_path)] == ["one", "two"]


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Darker:
    """A user's own perturbation."""

    spec = "darker"

    def __call__(self, network, images, labels, *, rng):  # type: ignore[no-untyped-def]
        return images / 2


def test_code_of_a_perturbation_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(small(), Kept(), Darker(), folder=tmp_path).source_code
    assert not evaluate(small(), Kept(), registry.build("perturbation", FGSM), folder=tmp_path).source_code


def test_what_has_come_back_is_present_again(tmp_path: Path) -> None:
    data, other = Kept(), Kept()
    other.labels[1:, 1:] = 0
    perturbations = [None, registry.build("perturbation", FGSM)]
    for one in (data, other, data):
        records = [evaluate(small(), one, p, folder=tmp_path) for p in perturbations]
        assert {r.key for r in current(read_records(tmp_path))} == {r.key for r in records}
    before = (tmp_path / "records.jsonl").read_bytes()
    evaluate(small(), data, folder=tmp_path)
    assert (tmp_path / "records.jsonl").read_bytes() == before
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert len(rows) == 4
    assert sorted(row["current"] for row in rows) == [False, False, True, True]


NET = """
from torch import nn
def build():
    return nn.Conv2d(3, 3, 1)
"""


@pytest.mark.parametrize("change", ["a mask", "an image", "a name", "an image more"])
def test_the_command_shows_what_is_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.chdir(tmp_path)
    tree(tmp_path, {"a.png": (6, 8), "b.png": (6, 8)})
    words = "evaluate", "--network", "enet(classes=3)", "--data", "folder(images='images', labels='labels', classes=3)"
    assert "not shown" not in run(*words, "--device", "cpu", "--out", "run")
    names = {"a mask": ("labels", "labels"), "an image": ("images", "images")}
    if change in names:
        one = Path(names[change][0])
        (one / "a.png").write_bytes((one / "b.png").read_bytes() if change == "an image" else mask())
    else:
        for place in ("images", "labels"):
            old = Path(place) / "b.png"
            (Path(place) / "c.png").write_bytes(old.read_bytes())
            if change == "a name":
                old.unlink()
    text = run(*words, "--device", "cpu", "--out", "run")
    assert "1 earlier record of other images, masks, weights or code is kept and not shown" in text
    assert text.count("itself clean") == 1
    assert len(read_records("run")) == 2


def mask() -> bytes:
    tree(Path("other"), {"a.png": (6, 8)}, values=(2, 2, 0))
    return Path("other/labels/a.png").read_bytes()
