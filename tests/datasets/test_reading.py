"""What an image file may say of itself: orientation, bit depth, transparency, several images; read right or refused."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.datasets.files import (
    check_pair,
    image_size,
    read_depth,
    read_image,
    read_labels,
    read_mask,
    train_ids_of,
)
from robustseg.datasets.frames import Frames
from trees import write_image, write_mask

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)
XMP = '<x tiff:Orientation="6"/>'


def turned(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def shown(path: Path) -> np.ndarray:
    """The independent reading."""
    with Image.open(path) as file:
        return np.array(ImageOps.exif_transpose(file).convert("RGB"))


def png(size: tuple[int, int], bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand, (height, width): what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", size[1], size[0], bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(bits: int) -> bytes:
    """A grey TIFF of one pixel row by hand, 4 pixels of (1, 1, …) bits; photometric 2 with three channels."""
    tags = [(256, 4), (257, 1), (258, bits), (259, 1), (262, 2), (273, 0), (277, 3), (278, 1), (279, 3 * bits // 2)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, value in tags:
        entries += (
            struct.pack("<HHII", tag, 3, 3, start)
            if tag == 258
            else struct.pack("<HHII", tag, 4, 1, start + 6 if tag == 273 else value)
        )
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
        + struct.pack("<3H", *[bits] * 3)
        + bytes(24)
    )


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_images_are_read_as_they_are_shown(tmp_path: Path, suffix: str, number: int) -> None:
    path = tmp_path / f"a.{suffix}"
    PICTURE.save(path, exif=turned(number), **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(path)
    assert image.shape[1:] == ((8, 6) if 5 <= number <= 8 else (6, 8))
    assert torch.equal(image, torch.from_numpy(shown(path)).movedim(-1, 0).float() / 255)
    assert image_size(path) == image.shape[1:]
    assert torch.equal(Frames(str(tmp_path))[0].image, image)


def test_the_first_pixel_of_a_turned_image_is_where_the_camera_saw_it(tmp_path: Path) -> None:
    """Orientation 6: the camera was held on its side; the stored lower left corner is shown at the upper left."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=turned(6))
    assert np.allclose(read_image(tmp_path / "a.png")[:, 0, 0].numpy() * 255, PIXELS[-1, 0])


def test_grey_tiff_files_are_turned_and_not_scrambled(tmp_path: Path) -> None:
    """Pillow maps these into memory when it opens them by name, and then reads rows of the wrong length."""
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "a.tif", exif=turned(6))
    assert np.array_equal((read_image(tmp_path / "a.tif")[0] * 255).round().numpy(), np.rot90(PIXELS[..., 0], -1))
    assert image_size(tmp_path / "a.tif") == (8, 6)


def test_an_orientation_counts_wherever_a_file_states_it(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP)
    PICTURE.save(tmp_path / "a.png", pnginfo=info)
    PICTURE.save(tmp_path / "b.jpg", xmp=XMP.encode())
    PICTURE.save(tmp_path / "c.tif", exif=turned(6), compression="tiff_lzw")
    PICTURE.save(tmp_path / "d.jpg", "MPO", exif=turned(6), save_all=True, append_images=[PICTURE])
    for path in tmp_path.iterdir():
        assert image_size(path) == (8, 6)
        assert np.array_equal((read_image(path) * 255).round().movedim(0, -1).numpy(), shown(path))


def test_a_png_may_name_its_orientation_behind_its_pixels(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG", exif=turned(6))
    whole = buffer.getvalue()
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    (tmp_path / "a.png").write_bytes(whole[:start] + whole[end:-12] + whole[start:end] + whole[-12:])
    assert read_image(tmp_path / "a.png").shape == (3, 8, 6)
    check_pair(tmp_path / "a.png", write_mask(tmp_path / "mask.png", [0], (8, 6)))


def test_masks_and_depth_are_turned_by_the_same_rule(tmp_path: Path) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(labels).save(tmp_path / "a.png", exif=turned(6))
    assert np.array_equal(read_labels(tmp_path / "a.png", train_ids_of(12), (4, 3)), np.rot90(labels, -1))
    Image.fromarray(labels.astype(np.uint16) * 256).save(tmp_path / "d.png", exif=turned(6))
    assert np.array_equal(read_depth(tmp_path / "d.png", (4, 3)), np.rot90(labels, -1))
    Image.fromarray((labels > 5).astype(np.uint8) * 255).save(tmp_path / "m.png", exif=turned(6))
    assert np.array_equal(read_mask(tmp_path / "m.png", (4, 3)), np.rot90(labels > 5, -1))


DEEP: dict[str, Callable[[Path], object]] = {
    "grey.png": lambda p: Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 16).save(p),
    "rgb.png": lambda p: p.write_bytes(png((2, 2), 16, 2, 2 * (b"\0" + bytes(12)))),
    "rgba.png": lambda p: p.write_bytes(png((2, 2), 16, 6, 2 * (b"\0" + bytes(16)))),
    "grey.tif": lambda p: Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 16).save(p),
    "whole.tif": lambda p: Image.fromarray(PIXELS[..., 0].astype(np.int32)).save(p),
    "real.tif": lambda p: Image.fromarray(PIXELS[..., 0].astype(np.float32)).save(p),
    "rgb.tif": lambda p: p.write_bytes(tiff(16)),
    "binary.ppm": lambda p: p.write_bytes(b"P6 2 1 4095\n" + bytes(12)),
    "plain.ppm": lambda p: p.write_bytes(b"P3 1 1 4095\n1 2 3\n"),
    "grey.ppm": lambda p: p.write_bytes(b"P5 2 1 1023\n" + bytes(4)),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_are_refused_from_the_header(tmp_path: Path, name: str) -> None:
    """Pillow would cut all of these to 8 bits, which turns the images of a 12-bit camera black."""
    DEEP[name](tmp_path / name)
    for read in (read_image, image_size, lambda p: read_labels(p, train_ids_of(3)), lambda p: read_mask(p, (6, 8))):
        with pytest.raises(RobustsegError, match=rf"expected 8 bits a value in '.*{name}', got (16|32); try saving"):
            read(tmp_path / name)


@pytest.mark.parametrize("limit", [15, 100, 255])
def test_the_white_of_a_ppm_is_what_it_says(tmp_path: Path, limit: int) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 2 1 %d\n" % limit + bytes([limit] * 3 + [0] * 3))
    assert read_image(tmp_path / "a.ppm").tolist() == [[[1.0, 0.0]]] * 3
    (tmp_path / "t.tif").write_bytes(tiff(8))
    assert read_image(tmp_path / "t.tif").shape == (3, 1, 4)


def _see_through(mode: str) -> Image.Image:
    picture = PICTURE.convert("RGBA")
    picture.putpixel((0, 0), (1, 2, 3, 254))
    return picture.convert(mode)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "rgba.png": (lambda p: _see_through("RGBA").save(p), "expected opaque pixels"),
    "grey.png": (lambda p: _see_through("LA").save(p), "expected opaque pixels"),
    "rgba.webp": (lambda p: _see_through("RGBA").save(p, lossless=True), "expected opaque pixels"),
    "palette.png": (lambda p: PICTURE.quantize(4).save(p, transparency=0), "expected opaque pixels"),
    "key.png": (lambda p: PICTURE.save(p, transparency=tuple(map(int, PIXELS[0, 0]))), "expected opaque pixels"),
    "print.jpg": (lambda p: PICTURE.convert("CMYK").save(p), "expected grey or RGB in .*got CMYK; try"),
    "lab.tif": (lambda p: Image.new("LAB", (8, 6)).save(p), "expected grey or RGB in .*got LAB; try"),
    **{
        f"two.{suffix}": (
            lambda p: PICTURE.save(p, save_all=True, append_images=[PICTURE.rotate(90)]),
            "expected one image in '.*', got 2; try",
        )
        for suffix in ("tif", "webp", "png")
    },
    "film.png": (lambda p: PICTURE.save(p, "GIF"), "expected a readable image"),
    "folder.png": (lambda p: p.mkdir(), "expected a readable image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_one_meaning_as_an_rgb_image_is_refused(tmp_path: Path, name: str) -> None:
    write, sentence = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(RobustsegError, match=sentence):
        read_image(tmp_path / name)


def test_transparency_that_no_pixel_has_is_no_matter(tmp_path: Path) -> None:
    PICTURE.convert("RGBA").save(tmp_path / "a.png")
    Image.fromarray(np.ones((2, 2), np.uint8)).save(tmp_path / "b.png", transparency=7)
    assert np.array_equal((read_image(tmp_path / "a.png") * 255).round().movedim(0, -1), PIXELS)
    assert (read_image(tmp_path / "b.png") * 255 == 1).all()


def test_values_of_a_mask_that_its_format_changes_are_refused(tmp_path: Path) -> None:
    values = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    values.save(tmp_path / "jpeg.png", "JPEG")
    (tmp_path / "two-bits.png").write_bytes(png((1, 4), 2, 0, b"\0\x1b"))  # Pillow reads 0, 85, 170, 255
    (tmp_path / "scaled.ppm").write_bytes(b"P5 4 1 3\n\0\1\2\3")
    for path in tmp_path.iterdir():
        with pytest.raises(RobustsegError, match=r"expected values as they were written in '.*', got .*; try saving"):
            read_labels(path, train_ids_of(4))
    for name in ("a.png", "a.bmp", "a.tif"):
        values.save(tmp_path / name)
        assert read_labels(tmp_path / name, train_ids_of(4)).tolist() == [[0, 1, 2, 3]]


def _layer(drawn: tuple[int, int, int, int], hidden: int) -> Image.Image:
    """Rows 2 and 3 drawn on a transparent layer, under which lies a hidden grey."""
    pixels = np.zeros((6, 8, 4), np.uint8)
    pixels[..., :3] = hidden
    pixels[2:4] = drawn
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "picture",
    [
        _layer((255, 255, 255, 255), 0),
        _layer((255, 255, 255, 255), 255),
        _layer((128, 0, 0, 128), 255),
        _layer((255, 255, 255, 255), 0).convert("LA"),
        _layer((255, 255, 255, 255), 0).convert("RGB"),
        _layer((255, 255, 255, 255), 0).convert("1"),
        _layer((255, 255, 255, 255), 127).convert("RGB"),
    ],
)
def test_a_hole_is_bright_and_opaque(tmp_path: Path, picture: Image.Image) -> None:
    picture.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (6, 8)).any(1).tolist() == [False, False, True, True, False, False]
    assert read_mask(tmp_path / "m.png", (6, 8)).sum() == 16


def test_a_hole_keeps_its_outline_in_a_jpeg(tmp_path: Path) -> None:
    """The grey that compression leaves in the black around a hole is not part of it."""
    disc = np.add.outer(np.arange(-20, 20) ** 2, np.arange(-20, 20) ** 2) < 150
    Image.fromarray(disc.astype(np.uint8) * 255).save(tmp_path / "m.jpg", quality=60)
    assert (shown(tmp_path / "m.jpg")[~disc] > 0).any()
    assert (read_mask(tmp_path / "m.jpg", (40, 40)).numpy() != disc).mean() < 0.01


@pytest.mark.parametrize("drawn", [(1, 1, 1, 255), (255, 255, 255, 127), (0, 0, 0, 255)])
def test_a_mask_without_a_hole_is_refused(tmp_path: Path, drawn: tuple[int, int, int, int]) -> None:
    _layer(drawn, 0).save(tmp_path / "m.png")
    with pytest.raises(RobustsegError, match=r"expected bright, opaque pixels .* got none; try white on black"):
        read_mask(tmp_path / "m.png", (6, 8))


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((6, 8), "got 8x6, 4 times smaller; try resizing it"),
        ((32, 24), "got 24x32, the same turned on its side; try turning it as the image is shown"),
        ((24, 31), "got 31x24; try the label map that belongs"),
        ((48, 64), "got 64x48; try the label map that belongs"),
    ],
)
def test_sizes_of_image_and_mask_are_compared_from_their_headers(
    tmp_path: Path, size: tuple[int, int], sentence: str
) -> None:
    image, mask = write_image(tmp_path / "a.png", (24, 32)), write_mask(tmp_path / "m.png", [0], size)
    for check in (check_pair, lambda i, m: read_labels(m, train_ids_of(1), read_image(i).shape[1:])):
        with pytest.raises(ShapeError, match=rf"the image's size 32x24 in '.*m\.png', {sentence}"):
            check(image, mask)


def test_a_pair_is_checked_without_its_pixels(tmp_path: Path) -> None:
    image, mask = write_image(tmp_path / "a.png", (60, 80)), write_mask(tmp_path / "m.png", [9], (60, 80))
    image.write_bytes(image.read_bytes()[:300])
    check_pair(image, mask)
    with pytest.raises(RobustsegError, match="expected a readable image"):
        read_image(image)
    check_pair(image, tmp_path / "labels.mat")
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(mask)
    with pytest.raises(RobustsegError, match=r"one class index a pixel in '.*', got 3 channels; try the index masks"):
        check_pair(image, mask)
