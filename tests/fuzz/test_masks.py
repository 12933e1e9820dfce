"""Masks of every bit depth, and the counts and mIoU that follow, against the indices that were written and plain loops."""

import io
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fuzz.harness import Edits, Refusal, answer, corpus, damaged, edits, examples, kept, tell
from fuzz.pictures import CHANNELS, png, saved, summed
from robustseg.datasets.folder import Folder
from robustseg.results import metrics

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged tags
SIZE = (7, 9)
CLASSES = (1, 2, 3, 19, 255)
Levels = tuple[int, ...] | None


class Mask(NamedTuple):
    """A mask file and the indices in it; None where it holds no index a pixel."""

    data: bytes
    indices: np.ndarray | None


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Grey, palette and coloured PNG masks of all depths; values mostly of few classes, some void, some out of range."""
    colour = draw(st.sampled_from([0, 0, 0, 0, 3, 3, 3, *CHANNELS]))
    depth = draw(st.sampled_from({0: [1, 2, 4, 8, 8, 8, 16], 3: [1, 2, 4, 8, 8]}.get(colour, [8, 16])))
    size = draw(st.sampled_from([SIZE] * 8 + [(9, 7), (14, 18), (3, 4)]))
    values = draw(
        st.sampled_from([[0], [0, 1], [0, 1, 2], [0, 255], [0, 1, 255], [0, 18, 255], [3, 85, 254], [15, 127, 128]])
    )
    picked = np.random.default_rng(draw(st.integers(0, 99))).choice(values, size) % 2**depth
    palette = bytes(range(256)) * 3 if colour == 3 else b""
    samples = np.repeat(picked[..., None], CHANNELS[colour], -1)
    data = png(samples, depth, colour, palette=palette[: 3 * 2**depth], interlaced=draw(st.booleans()))
    return Mask(data, picked if CHANNELS[colour] == 1 else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one image."""
    root = tmp_path_factory.mktemp("masks")
    for name in ("images", "labels"):
        (root / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    (root / "images" / "a.png").write_bytes(saved(pixels, "PNG"))
    return root


@given(
    mask=masks(),
    done=st.one_of(st.just([]), st.just([]), edits),
    repaired=st.booleans(),
    classes=st.sampled_from(CLASSES),
    void=st.sampled_from([None, None, (255,), (0,), (3, 255), ()]),
    spread=st.sampled_from([False, False, False, True]),
)
@examples(200)
def test_masks(
    mask: Mask, done: Edits, repaired: bool, classes: int, void: Levels, spread: bool, folder: Path, tally: Counter[str]
) -> None:
    data = summed(damaged(mask.data, done)) if repaired else damaged(mask.data, done)
    with kept("masks", data, ".png"):
        indices = mask.indices if data == mask.data else None
        values = (0, 255, 7)[:classes] if spread and classes <= 3 else None
        tell(tally, check(data, folder, classes, void, values, indices))


@corpus("masks")
@pytest.mark.parametrize("classes", CLASSES)
def test_masks_that_failed_once(path: Path, classes: int, folder: Path) -> None:
    for void in (None, (255,), (0,), (3, 255)):
        for values in (None, (0, 255)):
            check(path.read_bytes(), folder, classes, void, values)


def check(
    data: bytes, folder: Path, classes: int, void: Levels, values: Levels, indices: np.ndarray | None = None
) -> bool:
    """Whether a mask is accepted; if so its labels, counts and mIoU are those of plain loops over its indices."""
    path = folder / "labels" / "a.png"
    path.write_bytes(data)
    told = {name: levels for name, levels in (("void", void), ("values", values)) if levels is not None}
    opened = {"images": str(folder / "images"), "labels": str(path.parent), "classes": classes, **told}
    sample = answer(lambda: Folder(**opened)[0])
    if isinstance(sample, Refusal):
        return False
    labels = sample.labels.numpy()
    indices = _indices(path) if indices is None else indices
    assert told or classes > 2 or 1 in indices or 255 not in indices, "expected to be asked what 255 means"
    places = {value: label for label, value in enumerate(values or range(classes))}
    places |= dict.fromkeys(void if void is not None else {255} - set(values or ()), 255)
    wanted = [[places.get(int(value), -1) for value in row] for row in indices]
    assert labels.tolist() == wanted, "expected other labels, or a refusal of what is -1"
    guesses = np.random.default_rng(classes).integers(0, classes + 1, labels.shape)
    counts = metrics.count(labels[None], guesses[None], ["a"], classes)
    confusion, miou = _by_loops(wanted, guesses.tolist(), classes)
    assert counts.confusion.tolist() == confusion
    assert metrics.miou(counts) == pytest.approx(miou, abs=1e-12, nan_ok=True)
    return True


def _indices(path: Path) -> np.ndarray:
    """The index of each pixel as Pillow reads a file; Pillow spreads grey levels of 2 and 4 bits over 0 to 255."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as file:
        narrow = data[:4] == b"\x89PNG" and data[25] == 0 and data[24] in (2, 4)
        values = np.asarray(ImageOps.exif_transpose(file)).astype(np.int64)
        return values // (255 // (2 ** data[24] - 1)) if narrow else values


def _by_loops(labels: list[list[int]], guesses: list[list[int]], classes: int) -> tuple[list[list[int]], float]:
    confusion = [[0] * (classes + 1) for _ in range(classes)]
    for row, guessed in zip(labels, guesses, strict=True):
        for label, guess in zip(row, guessed, strict=True):
            if label != 255:
                confusion[label][guess] += 1
    ratios = []
    for k in range(classes):
        labelled, predicted = sum(confusion[k]), sum(row[k] for row in confusion)
        if labelled:
            ratios.append(confusion[k][k] / (labelled + predicted - confusion[k][k]))
    return confusion, sum(ratios) / len(ratios) if ratios else math.nan
