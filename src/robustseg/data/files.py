"""Images and label maps from files, with one clear sentence for each that cannot be used."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustseg.records import IGNORE, DatasetNotFound, RobustsegError, ShapeError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


def read_image(path: Path) -> Tensor:
    """An RGB image as float32 `[3, h, w]` in [0, 1].

    Raises:
        RobustsegError: the file is missing, truncated or no image.
    """
    return torch.from_numpy(_open(path, "RGB")).permute(2, 0, 1).contiguous().float() / 255


def read_labels(path: Path, train_ids: np.ndarray, size: tuple[int, int]) -> Tensor:
    """A mask of class indices as int64 train ids `[h, w]`.

    Args:
        path: an 8-bit PNG (grey or with a palette), one index a pixel.
        train_ids: int `[256]`: file value -> train id, 255 for void, -1 for a value that must not occur.
        size: (height, width) of the image that it belongs to.

    Raises:
        RobustsegError: no usable file, or a value outside the classes. ShapeError: another size than the image.
    """
    values = _open(path, None)
    if values.ndim != 2:
        raise RobustsegError(
            f"expected one class index a pixel in '{path}', got {values.shape[-1]} channels; "
            "try the index masks, not the coloured ones"
        )
    if values.shape != size:
        raise ShapeError(
            f"expected labels of the image's size {size[1]}x{size[0]} in '{path}', "
            f"got {values.shape[1]}x{values.shape[0]}; try the label map that belongs to this image"
        )
    labels = train_ids[values]
    if (labels < 0).any():
        wrong = int(values[labels < 0][0])
        known = np.flatnonzero((train_ids >= 0) & (train_ids != IGNORE))
        raise RobustsegError(
            f"expected label values {known.min()} to {known.max()} or void in '{path}', got {wrong}; "
            "try the class list or the label format of this data set"
        )
    return torch.from_numpy(labels.astype(np.int64))


def _open(path: Path, mode: str | None) -> np.ndarray:
    try:
        with Image.open(path) as file:
            picture = file.convert(mode) if mode else file
            return np.array(picture)
    except FileNotFoundError as error:
        raise DatasetNotFound(f"expected a file at '{path}', got none; try: robustseg doctor --data SPEC") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise RobustsegError(
            f"expected a readable image in '{path}', got '{error}'; try copying this file again"
        ) from error


def train_ids_of(classes: int, *, void: tuple[int, ...] = (IGNORE,)) -> np.ndarray:
    """The table for masks that hold train ids already: 0 .. classes - 1 stay, `void` values become 255."""
    table = np.full(256, -1, np.int64)
    table[:classes] = np.arange(classes)
    table[list(void)] = IGNORE
    return table


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
