"""Fake data sets on disk for the tests of what reads them."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, size: tuple[int, int] = (6, 8), *, seed: int = 0) -> Path:
    """A noisy RGB picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, values: np.ndarray | list[int], size: tuple[int, int] = (6, 8)) -> Path:
    """An 8-bit mask: `values` as they are where they have two axes, else repeated over (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, np.uint8)
    Image.fromarray(array if array.ndim == 2 else np.resize(array, size)).save(path)
    return path


def camvid(root: Path, frames: dict[str, list[str]]) -> Path:
    """SegNet's layout: split -> names of frames; masks hold all 11 classes and void (11)."""
    for split, names in frames.items():
        for i, name in enumerate(names):
            write_image(root / split / f"{name}.png", seed=i)
            write_mask(root / f"{split}annot" / f"{name}.png", list(range(12)))
    return root


def cityscapes(root: Path, frames: dict[str, list[str]], *, kind: str = "labelIds", suffix: str = "png") -> Path:
    """The official tree: split -> names of frames such as `lindau_000000_000019`; masks hold ids 0 to 33."""
    for split, names in frames.items():
        for i, name in enumerate(names):
            place = Path(split) / name.partition("_")[0]
            write_image(root / "leftImg8bit" / place / f"{name}_leftImg8bit.{suffix}", seed=i)
            values = range(34) if kind == "labelIds" else [*range(19), 255]
            write_mask(root / "gtFine" / place / f"{name}_gtFine_{kind}.png", list(values))
    return root


def folder(root: Path, sizes: dict[str, tuple[int, int]], *, values: tuple[int, ...] = (0, 1, 2, 255)) -> Path:
    """`images/NAME` beside `labels/STEM.png`: file name -> (height, width)."""
    for i, (name, size) in enumerate(sizes.items()):
        write_image(root / "images" / name, size, seed=i)
        write_mask(root / "labels" / f"{Path(name).stem}.png", list(values), size)
    return root
