"""Images and label maps from files, with one clear sentence for each that cannot be used."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustseg.core.errors import DatasetNotFound, RobustsegError, ShapeError
from robustseg.core.labels import IGNORE

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


def read_image(path: Path) -> Tensor:
    """An RGB image as float32 `[3, h, w]` in [0, 1].

    Raises:
        RobustsegError: the file is missing, truncated, no image, or has more than 8 bits a channel.
    """
    return torch.from_numpy(_open(path, "RGB")).permute(2, 0, 1).contiguous().float() / 255


def read_labels(path: Path, train_ids: np.ndarray, size: Sequence[int] | None = None) -> Tensor:
    """A mask of class indices as int64 train ids `[h, w]`.

    Args:
        path: an 8-bit PNG (grey or with a palette), one index a pixel.
        train_ids: int64 `[256]`: file value -> train id, 255 for void, -1 for a value that must not occur.
        size: (height, width) of the image that it belongs to; None: any.

    Raises:
        RobustsegError: no usable file, or a value outside the classes. ShapeError: another size than the image.
    """
    values = _open(path, None)
    if values.ndim != 2:
        raise RobustsegError(
            f"expected one class index a pixel in '{path}', got {values.shape[-1]} channels; "
            "try the index masks, not the coloured ones"
        )
    return checked_labels(values, path, train_ids, size)


def checked_labels(values: np.ndarray, path: Path, train_ids: np.ndarray, size: Sequence[int] | None = None) -> Tensor:
    """Values that were read from a file, uint8 `[h, w]`, as int64 train ids `[h, w]`; see `read_labels`."""
    if size is not None and values.shape != tuple(size):
        raise ShapeError(
            f"expected labels of the image's size {size[1]}x{size[0]} in '{path}', "
            f"got {values.shape[1]}x{values.shape[0]}; try the label map that belongs to this image"
        )
    labels = train_ids[values]
    if labels.min(initial=0) < 0:
        wrong = int(values[labels < 0][0])
        known = np.flatnonzero((train_ids >= 0) & (train_ids != IGNORE))
        raise RobustsegError(
            f"expected label values {known.min()} to {known.max()} or void in '{path}', got {wrong}; "
            "try the class list or the label format of this data set"
        )
    return torch.from_numpy(labels)


def read_mask(path: Path, size: Sequence[int]) -> Tensor:
    """A mask, bool `[h, w]`, True wherever the picture is not black.

    Args:
        path: a picture. size: (height, width) that it must have.

    Raises:
        RobustsegError: no usable file. ShapeError: another size.
    """
    values = _open(path, "RGB").max(-1)
    if values.shape != tuple(size):
        raise ShapeError(
            f"expected a mask of the image's size {size[1]}x{size[0]} in '{path}', "
            f"got {values.shape[1]}x{values.shape[0]}; try drawing it on this image"
        )
    return torch.from_numpy(values > 0)


def read_depth(path: Path, size: Sequence[int]) -> Tensor:
    """Measured depth in metres, float32 `[h, w]`, 0 where there is none: a 16-bit PNG of metres times 256, as KITTI's.

    Args:
        path: of the PNG. size: (height, width) that it must have.

    Raises:
        RobustsegError: no usable file. ShapeError: another size.
    """
    try:
        with Image.open(path) as file:
            values = np.array(file)
    except FileNotFoundError as error:
        raise DatasetNotFound(f"expected a depth map at '{path}', got none; try the tree of this data set") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise RobustsegError(
            f"expected a readable depth map in '{path}', got '{error}'; try copying this file again"
        ) from error
    if values.ndim != 2 or values.dtype not in (np.uint16, np.int32):
        raise RobustsegError(
            f"expected 16 bits a pixel in '{path}', got {values.dtype.itemsize * 8} in {values.ndim} axes; "
            "try the PNG of metres times 256"
        )
    if values.shape != tuple(size):
        raise ShapeError(
            f"expected depth of the image's size {size[1]}x{size[0]} in '{path}', "
            f"got {values.shape[1]}x{values.shape[0]}; try the depth map that belongs to this image"
        )
    return torch.from_numpy(values.astype(np.float32) / 256)


def _open(path: Path, mode: str | None) -> np.ndarray:
    try:
        with Image.open(path) as file:
            # Pillow clips 16-bit values instead of scaling them, so those are refused below and not converted
            narrow = not file.mode.startswith(("I", "F"))
            values = np.array(file.convert(mode) if mode and narrow else file)
    except FileNotFoundError as error:
        raise DatasetNotFound(f"expected a file at '{path}', got none; try: robustseg doctor --data SPEC") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise RobustsegError(
            f"expected a readable image in '{path}', got '{error}'; try copying this file again"
        ) from error
    if values.dtype not in (np.uint8, np.bool_):
        raise RobustsegError(
            f"expected 8 bits a value in '{path}', got {values.dtype.itemsize * 8}; try saving it as an 8-bit image"
        )
    return values.astype(np.uint8, copy=False)


def train_ids_of(classes: int, *, void: tuple[int, ...] = (IGNORE,)) -> np.ndarray:
    """The table for masks that hold train ids already: 0 .. classes - 1 stay, `void` values become 255."""
    table = np.full(256, -1, np.int64)
    table[:classes] = np.arange(classes)
    table[list(void)] = IGNORE
    return table


def paired(images: Path, labels: Path, *, what: str, tree: str) -> dict[str, tuple[Path, Path]]:
    """The images of a folder, each with the index mask of the same stem: id -> (image, mask), by id.

    Args:
        images, labels: the two folders; masks are PNG.
        what: the name of the data set, for errors. tree: what its folders should look like, for errors.

    Raises:
        DatasetNotFound: a folder is missing or holds no image, or images have no mask.
        RobustsegError: two images have the same stem.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise DatasetNotFound(f"expected the folder '{folder}' of {what}, got none; try this tree:\n{tree}")
    files = images_in(images)
    if not files:
        raise DatasetNotFound(f"expected images in '{images}', got none; try this tree:\n{tree}")
    pairs = {path.stem: (path, labels / f"{path.stem}.png") for path in files}
    twice = [path for path in files if pairs[path.stem][0] != path]
    if twice:
        raise RobustsegError(
            f"expected one image a name in '{images}', got '{twice[0].name}' and '{pairs[twice[0].stem][0].name}'; "
            "try images and masks in folders of their own"
        )
    require_masks(list(pairs.values()), tree=tree)
    return {key: pairs[key] for key in sorted(pairs)}


def require_masks(pairs: Sequence[tuple[Path, Path]], *, tree: str) -> None:
    """Raise `DatasetNotFound` unless the mask of every (image, mask) is there."""
    lost = [(image, mask) for image, mask in pairs if not mask.is_file()]
    if lost:
        image, mask = lost[0]
        raise DatasetNotFound(
            f"expected labels for each image, got none for {len(lost)} of {len(pairs)}, the first for '{image}' "
            f"at '{mask}'; try this tree:\n{tree}"
        )


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
