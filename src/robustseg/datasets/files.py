"""Images and label maps from files, with one clear sentence for each that cannot be used.

Every image is read here, and read as it is shown: turned as its EXIF orientation says, 8 bits a channel, opaque. What
another reading would have to guess (more bits, transparent pixels, other colours, several images in one file) is refused.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from robustseg.core.errors import DatasetNotFound, RobustsegError, ShapeError
from robustseg.core.labels import IGNORE

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
LABEL_FORMATS = ("PNG", "BMP", "TIFF")
"""Those that keep each value of a label map."""
COLOURS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr")
"""Pillow's modes of 8 bits that have one meaning as RGB."""
ORIENTATION = 0x0112
"""The EXIF tag, 1 to 8; TIFF files have it as a tag of their own."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image of an EXIF orientation upright."""
LABELS = ("labels", "try the label map that belongs to this image")
HALF = 128
"""The least of 256 levels that is at least one half."""


def read_image(path: Path) -> Tensor:
    """An image as it is shown, RGB float32 `[3, h, w]` in [0, 1].

    Raises:
        RobustsegError: the file is missing, truncated or no image; it has more than 8 bits a channel, transparent pixels,
            CMYK or other colours than grey and RGB, or several images.
    """
    with _opened(path) as file:
        _require_picture(file, path)
        shown = _upright(file)
        pixels = np.array(shown.convert("RGBA" if shown.has_transparency_data else "RGB"))
        if (pixels[..., 3:] < 255).any():
            raise RobustsegError(
                f"expected opaque pixels in '{path}', got transparent ones, which have no colour; "
                "try saving it on a background, without transparency"
            )
    return torch.from_numpy(pixels[..., :3]).permute(2, 0, 1).contiguous().float() / 255


def read_labels(path: Path, train_ids: np.ndarray, size: Sequence[int] | None = None) -> Tensor:
    """A mask of class indices as int64 train ids `[h, w]`.

    Args:
        path: an 8-bit PNG (grey or with a palette), one index a pixel; an EXIF orientation counts as it does for images.
        train_ids: int64 `[256]`: file value -> train id, 255 for void, -1 for a value that must not occur.
        size: (height, width) of the image that it belongs to; None: any.

    Raises:
        RobustsegError: no usable file, or a value outside the classes. ShapeError: another size than the image.
    """
    with _opened(path) as file:
        _require_indices(file, path)
        values = np.array(_upright(file)).astype(np.uint8)
    return checked_labels(values, path, train_ids, size)


def checked_labels(values: np.ndarray, path: Path, train_ids: np.ndarray, size: Sequence[int] | None = None) -> Tensor:
    """Values that were read from a file, uint8 `[h, w]`, as int64 train ids `[h, w]`; see `read_labels`."""
    if size is not None:
        _require_size(values.shape, size, path, *LABELS)
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
    """A mask, bool `[h, w]`: True where a picture is bright and opaque, both to at least one half.

    The brightness of a pixel is its largest channel, so any strong colour counts. Pixels of a transparent layer that
    nothing was drawn on do not, whatever colour lies hidden in them.

    Args:
        path: a picture. size: (height, width) that it must have.

    Raises:
        RobustsegError: no usable file, or no such pixel. ShapeError: another size.
    """
    with _opened(path) as file:
        _require_picture(file, path)
        pixels = np.array(_upright(file).convert("RGBA"))
    _require_size(pixels.shape[:2], size, path, "a mask", "try drawing it on this image")
    mask = (pixels[..., :3].max(-1) >= HALF) & (pixels[..., 3] >= HALF)
    if not mask.any():
        raise RobustsegError(
            f"expected bright, opaque pixels (128 to 255) where the mask is in '{path}', got none; try white on black"
        )
    return torch.from_numpy(mask)


def read_depth(path: Path, size: Sequence[int]) -> Tensor:
    """Measured depth in metres, float32 `[h, w]`, 0 where there is none: a 16-bit PNG of metres times 256, as KITTI's.

    Args:
        path: of the PNG. size: (height, width) that it must have.

    Raises:
        RobustsegError: no usable file. ShapeError: another size.
    """
    values = read_16bit(path)
    _require_size(values.shape, size, path, "depth", "try the depth map that belongs to this image")
    return torch.from_numpy(values.astype(np.float32) / 256)


def read_16bit(path: Path) -> np.ndarray:
    """The values of a depth map, int64 `[h, w]`, 0 to 65,535.

    Raises:
        RobustsegError: the file is missing, or not grey with 16 bits a pixel.
    """
    with _opened(path, what="depth map") as file:
        if not file.mode.startswith("I") or _bits(file) != 16:
            raise RobustsegError(
                f"expected 16 bits a pixel in '{path}', got {_bits(file)} in {len(file.getbands())} channels; "
                "try the PNG of metres times 256"
            )
        return np.array(_upright(file), np.int64)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image as it is shown. Only its header is read.

    Raises:
        RobustsegError: the header says that `read_image` will refuse the file.
    """
    with _opened(path) as file:
        _require_picture(file, path)
        return _size(file)


def check_pair(image: Path, mask: Path) -> None:
    """Whether an image and its mask can be read and belong together, as far as their headers say.

    Headers do not say which pixels are transparent, which values a mask holds, or whether a file was cut; a mask in a
    format of its own, such as MATLAB's, is left to whoever reads it.

    Raises:
        RobustsegError: one of them cannot be used. ShapeError: they differ in size.
    """
    size: Sequence[int] = image_size(image)
    if mask.suffix.lower() in IMAGE_SUFFIXES:
        with _opened(mask) as file:
            _require_indices(file, mask)
            got = _size(file)
            if got == size[::-1]:  # a PNG may name its orientation behind its pixels
                size = tuple(read_image(image).shape[-2:])
            _require_size(got, size, mask, *LABELS)


@contextmanager
def _opened(path: Path, *, what: str = "image") -> Iterator[ImageFile.ImageFile]:
    """A file of which only the header is read so far; whatever is wrong with it becomes one sentence."""
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as file:
            file.filename = (
                ""  # else Pillow maps plain grey TIFF files into memory, and scrambles those that are turned
            )
            yield file
    except RobustsegError:
        raise
    except FileNotFoundError as error:
        raise DatasetNotFound(f"expected a file at '{path}', got none; try: robustseg doctor --data SPEC") from error
    except Exception as error:  # Pillow lets through whatever a torn file makes it stumble over
        raise RobustsegError(
            f"expected a readable {what} in '{path}', got '{error}'; try copying this file again, or saving it as PNG"
        ) from error


def _require_picture(file: ImageFile.ImageFile, path: Path) -> None:
    """Raise unless the header promises one image of 8 bits, in grey or RGB."""
    _require_one(file, path)
    if file.mode not in COLOURS:
        raise RobustsegError(f"expected grey or RGB in '{path}', got {file.mode}; try saving it as RGB")


def _require_indices(file: ImageFile.ImageFile, path: Path) -> None:
    """Raise unless the header promises one channel of 8 bits whose values come as they were written."""
    _require_one(file, path)
    if file.mode not in ("1", "L", "P"):
        raise RobustsegError(
            f"expected one class index a pixel in '{path}', got {len(file.getbands())} channels; "
            "try the index masks, not the coloured ones"
        )
    if file.format not in LABEL_FORMATS or (file.mode == "L" and _layout(file) != "L"):
        kind = file.format if file.format not in LABEL_FORMATS else "grey of another depth, which is scaled to 8 bits"
        raise RobustsegError(
            f"expected values as they were written in '{path}', got {kind}; try saving the mask as an 8-bit PNG"
        )


def _require_one(file: ImageFile.ImageFile, path: Path) -> None:
    """Raise unless the header promises one image of at most 8 bits a channel."""
    if _bits(file) > 8:
        # Pillow cuts 16-bit colours to their upper 8 bits, which turns the images of a 12-bit camera black
        raise RobustsegError(f"expected 8 bits a value in '{path}', got {_bits(file)}; try saving it as an 8-bit image")
    count = getattr(file, "n_frames", 1)
    if count > 1 and file.format != "MPO":  # a JPEG of a phone, followed by its preview
        raise RobustsegError(
            f"expected one image in '{path}', got {count}; try saving the one that is meant as a file of its own"
        )


def _bits(file: ImageFile.ImageFile) -> int:
    """Bits a channel, as the header says; 8 where it says fewer."""
    if file.format == "TIFF":
        return max((8, *file.tag_v2.get(258, ())))  # type: ignore[attr-defined]
    if file.mode.startswith(("I", "F")):
        return 32 if "32" in _layout(file) else 16
    if file.format == "PPM":
        args = file.tile[0].args
        return 16 if isinstance(args, tuple) and int(args[-1]) > 255 else 8
    return 16 if file.format == "PNG" and "16" in _layout(file) else 8


def _layout(file: ImageFile.ImageFile) -> str:
    """Pillow's name of how the file stores pixels, such as `RGB;16B`."""
    args = file.tile[0].args if file.tile else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _upright(file: ImageFile.ImageFile) -> Image.Image:
    """The whole image as it is shown."""
    file.load()
    turn = TURNS.get(_orientation(file))
    return file if turn is None else file.transpose(turn)


def _size(file: ImageFile.ImageFile) -> tuple[int, int]:
    """(height, width) of an image as it is shown."""
    turned = file.format != "TIFF" and _orientation(file) >= 5  # Pillow turns TIFF files itself
    return (file.width, file.height) if turned else (file.height, file.width)


def _orientation(file: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 where there is none: of a PNG that is not loaded yet, only what precedes its pixels."""
    told = Image.Image.getexif(file).get(ORIENTATION)  # that of PngImageFile would load the pixels
    return told if told in TURNS else 1


def _require_size(got: Sequence[int], size: Sequence[int], path: Path, what: str, hint: str) -> None:
    """Raise unless a map has the (height, width) of its image."""
    (height, width), (high, wide) = got, size
    if (height, width) == (high, wide):
        return
    note = ""
    if high % height == 0 and high * width == wide * height:
        note, hint = f", {high // height} times smaller", "try resizing it to the image's size, nearest neighbour"
    elif (height, width) == (wide, high):
        note, hint = (
            ", the same turned on its side",
            "try turning it as the image is shown (its EXIF orientation counts)",
        )
    raise ShapeError(
        f"expected {what} of the image's size {wide}x{high} in '{path}', got {width}x{height}{note}; {hint}"
    )


def train_ids_of(classes: int | Sequence[int], *, void: tuple[int, ...] = (IGNORE,)) -> np.ndarray:
    """The table for masks that hold train ids (0 .. classes - 1) or these values of the classes; `void` becomes 255."""
    values = range(classes) if isinstance(classes, int) else classes
    table = np.full(256, -1, np.int64)
    table[list(values)] = np.arange(len(values))
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


def images_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The image files of a folder whose names match a pattern, in natural order; hidden ones, such as the `._a.png` of
    macOS, are none.
    """
    files = (p for p in folder.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(files, key=natural)


def folders_in(folder: Path) -> list[Path]:
    """The folders of a folder, by name, without hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def natural(path: Path) -> tuple[tuple[str | int, ...], str]:
    """Sort key that compares digits as whole numbers, so `2.png` comes before `10.png`, and ignores upper case.

    Names that differ only in leading zeros or in case are ordered by their characters; a minus sign is a character.
    """
    parts = re.split(r"(\d+)", path.name.casefold())
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), path.name
