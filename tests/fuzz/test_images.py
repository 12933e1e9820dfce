"""Images of every format, bit depth and orientation, whole and damaged, against their pixels or Pillow's reading."""

import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fuzz.harness import Edits, Refusal, answer, corpus, damaged, edits, examples, kept, tell
from fuzz.pictures import CHANNELS, exif, png, saved, summed, tiff, upright
from robustseg.datasets.files import read_image

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged tags


class Picture(NamedTuple):
    """An image file, its upright RGB pixels in [0, 1] where the format keeps them, and whether it must be read."""

    data: bytes
    suffix: str
    truth: np.ndarray | None
    plain: bool = True


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """Whole files of all kinds."""
    size, seed = (draw(st.integers(1, 40)), draw(st.integers(1, 40))), draw(st.integers(0, 99))
    orientation = draw(st.sampled_from([0, *range(1, 9), 9, 255]))
    random = np.random.default_rng(seed)
    how = draw(st.sampled_from(["png", "png", "tiff", "lossless", "lossy", "other"]))
    if how == "png":
        colour = draw(st.sampled_from(list(CHANNELS)))
        depth = draw(st.sampled_from({0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8]}.get(colour, [8, 16])))
        values = random.integers(0, 2**depth, (*size, CHANNELS[colour]))
        palette = random.integers(0, 256, (2**depth, 3), np.uint8)
        told = palette.tobytes() if colour == 3 else b""
        data = png(values, depth, colour, palette=told, interlaced=draw(st.booleans()), orientation=orientation)
        seen = palette[values[..., 0]] / 255 if colour == 3 else values / (2**depth - 1)
        return Picture(data, ".png", _shown(seen, orientation), depth <= 8 and colour < 4)
    channels, depth = draw(st.sampled_from([1, 3])), draw(st.sampled_from([8, 16])) if how == "tiff" else 8
    values = random.integers(0, 2**depth, (*size, channels))
    if how == "tiff":
        truth = _shown(values / (2**depth - 1), orientation)
        return Picture(tiff(values, depth, orientation=orientation), ".tif", truth, depth == 8)
    pixels, told = values.astype(np.uint8).squeeze(-1) if channels == 1 else values.astype(np.uint8), exif(orientation)
    if how == "lossless":
        pixels = np.broadcast_to(values.astype(np.uint8), (*size, 3))
        data = saved(np.ascontiguousarray(pixels), "WEBP", lossless=True, exact=True, exif=told)
        return Picture(data, ".webp", _shown(pixels / 255, orientation))
    if how == "lossy":
        suffix, kind = draw(st.sampled_from([(".jpg", "JPEG"), (".webp", "WEBP")]))
        options = {"progressive": draw(st.booleans())} if kind == "JPEG" else {}
        return Picture(saved(pixels, kind, exif=told, **options), suffix, None)
    return Picture(*draw(st.sampled_from(_others(np.ascontiguousarray(np.broadcast_to(values, (*size, 3)), np.uint8)))))


def _others(pixels: np.ndarray) -> list[tuple[bytes, str, np.ndarray | None, bool]]:
    """Formats without orientation, and files that hold more than a picture."""
    shown, more = pixels / 255, [Image.fromarray(255 - pixels)]
    deep = (pixels[..., 0].astype(np.uint32) * 257).astype(">u2")
    wide = b"P5 %d %d 65535\n" % (deep.shape[1], deep.shape[0]) + deep.tobytes()
    real = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.float32)).save(real, "TIFF")
    cmyk = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(cmyk, "JPEG")
    return [
        (saved(pixels, "BMP"), ".bmp", shown, True),
        (saved(pixels, "PPM"), ".ppm", shown, True),
        (saved(pixels, "PNG", save_all=True, append_images=more), ".png", shown, False),
        (saved(pixels, "TIFF", save_all=True, append_images=more, compression="tiff_lzw"), ".tiff", shown, False),
        (wide, ".ppm", np.repeat(deep[..., None] / 65535, 3, -1), False),
        (real.getvalue(), ".tif", None, False),
        (cmyk.getvalue(), ".jpeg", None, False),
        (saved(pixels, "GIF"), ".png", None, False),
    ]


def _shown(values: np.ndarray, orientation: int) -> np.ndarray:
    grey = values.shape[-1] < 3
    return upright(np.repeat(values[..., :1], 3, -1) if grey else values[..., :3], orientation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files lie."""
    return tmp_path_factory.mktemp("images")


@given(picture=pictures(), done=st.one_of(st.just([]), edits), repaired=st.booleans())
@examples(200)
def test_images(picture: Picture, done: Edits, repaired: bool, folder: Path, tally: Counter[str]) -> None:
    data = summed(damaged(picture.data, done)) if repaired else damaged(picture.data, done)
    path = folder / f"image{picture.suffix}"
    path.write_bytes(data)
    with kept("images", data, picture.suffix):
        truth = None if data != picture.data else picture.truth
        accepted = check(path, truth)
        assert accepted or data != picture.data or not picture.plain, "expected an image to be read, got a refusal"
    tell(tally, accepted)


@corpus("images")
def test_images_that_failed_once(path: Path) -> None:
    check(path)


def check(path: Path, truth: np.ndarray | None = None) -> bool:
    """Whether the image is accepted; if so it is what was written or, where that is not known, what Pillow reads."""
    seen = answer(lambda: read_image(path))
    if isinstance(seen, Refusal):
        return False
    if truth is None:
        assert not deep(path), "expected 16 bits a value to be refused or read as they are, got 8 of them"
        with Image.open(io.BytesIO(path.read_bytes())) as file:  # by name, Pillow scrambles some turned TIFF files
            truth = np.asarray(ImageOps.exif_transpose(file).convert("RGB")) / 255
    pixels = seen.permute(1, 2, 0).numpy()
    assert pixels.shape == truth.shape, f"expected {truth.shape}, got {pixels.shape}"
    off = float(np.abs(pixels - truth).max())
    assert off < 0.51 / 255, f"expected the pixels of the file, got some that are off by {255 * off:.2f}/255"
    return True


def deep(path: Path) -> bool:
    """Whether a file says that it holds more than 8 bits a value."""
    data = path.read_bytes()
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[24:25] == b"\x10"
    try:
        with Image.open(path) as file:
            bits = dict(getattr(file, "tag_v2", {})).get(258, (8,))
            return max(np.atleast_1d(bits)) > 8 or file.mode.startswith(("I", "F"))
    except Exception:  # what cannot be opened is not deep
        return False
