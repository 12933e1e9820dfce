"""Identity of data: a changed image, mask, video or list of classes is another measurement; an equal one is the same."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import trees
from robustseg import api
from robustseg.core.spaces import CAMVID
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.joined import Joined
from robustseg.datasets.streets import dataset as streets
from robustseg.datasets.views import Chosen, Resized, content
from robustseg.evaluation.run import evaluate
from robustseg.results.record import read_records
from robustseg.testing import PixelNetwork


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in "ab":
        trees.write_image(tmp_path / "images" / f"{name}.png")
        trees.write_mask(tmp_path / "labels" / f"{name}.png", [0, 1, 2, 3])
    (tmp_path / "classes.txt").write_text("road\ncar\nsky\nsign\n")
    return tmp_path


def folder(root: Path) -> Dataset:
    classes = str(root / "classes.txt")
    return api.data(f"folder(images={str(root / 'images')!r}, labels={str(root / 'labels')!r}, classes={classes!r})")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a mask": lambda root: trees.write_mask(root / "labels" / "b.png", [3, 2, 1, 0]),
    "an image": lambda root: shutil.copy(_other_image(root), root / "images" / "b.png"),
    "the classes": lambda root: (root / "classes.txt").write_text("road\ncar\nsky\npost\n"),
}


def _other_image(root: Path) -> Path:
    trees.write_image(root / "other.png", seed=1)
    return root / "other.png"


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_other_data(root: Path, change: str) -> None:
    views: list[Callable[[Dataset], Dataset]] = [
        lambda data: data,
        lambda data: Resized(data, (8, 8)),
        lambda data: Chosen(data, ["b"]),
        lambda data: Joined(data),
    ]
    before = [content(view(folder(root))) for view in views]
    assert before == [content(view(folder(root))) for view in views]
    CHANGES[change](root)
    assert all(old != content(view(folder(root))) for old, view in zip(before, views, strict=True))


def test_what_is_not_chosen_does_not_count(root: Path) -> None:
    before = content(Chosen(folder(root), ["a"]))
    CHANGES["a mask"](root)
    assert content(Chosen(folder(root), ["a"])) == before


def test_a_corrected_mask_is_measured_anew(root: Path, tmp_path: Path) -> None:
    network = PixelNetwork().float()
    network.label_space = folder(root).label_space
    before = evaluate(network, folder(root), folder=tmp_path / "run")
    CHANGES["a mask"](root)
    after = evaluate(network, folder(root), folder=tmp_path / "run")
    assert after.counts != before.counts
    assert len(read_records(tmp_path / "run")) == 2


def test_frames_without_labels_count(root: Path) -> None:
    spec = f"frames({str(root / 'images')!r})"
    before = content(api.data(spec))
    CHANGES["an image"](root)
    assert content(api.data(spec)) != before


def test_made_up_streets_are_known_by_what_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [
        f"streets(seed={seed}, scenes=1, frames=1, size='{size}')" for seed in (0, 1) for size in ("32x64", "48x96")
    ]
    assert len({api.data(spec).fingerprint(0) for spec in specs}) == 4
    before = api.data(specs[0]).fingerprint(0)
    monkeypatch.setattr(streets, "_renderer", lambda: "another renderer")
    assert api.data(specs[0]).fingerprint(0) != before


class Memory(Dataset):
    """Images in memory, as a user may have them; one of them needs a gradient."""

    spec, label_space, ids = "memory", CAMVID, ("a_0",)

    def __init__(self, level: float = 0.5, label: int = 0):
        self.sample = Sample(torch.full((3, 4, 4), level, requires_grad=True), torch.full((4, 4), label), "a_0")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample


def test_data_in_memory_is_known_by_its_values() -> None:
    known = {content(Memory()), content(Memory(0.6)), content(Memory(label=1))}
    assert len(known) == 3
    assert content(Memory()) in known
