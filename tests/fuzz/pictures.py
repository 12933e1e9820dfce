"""Image files written by hand, so that a test knows their pixels without asking the library that reads them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour types of PNG: grey, RGB, palette, grey with alpha, RGB with alpha."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    samples: np.ndarray,
    depth: int,
    colour: int,
    *,
    palette: bytes = b"",
    interlaced: bool = False,
    orientation: int = 0,
) -> bytes:
    """A PNG file of samples `[h, w, c]`, each below `2 ** depth`."""
    height, width = samples.shape[:2]
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    rows = b"".join(b"\0" + _packed(row, depth) for part in passes if part.size for row in part)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))]
    chunks += [(b"PLTE", palette)] if palette else []
    chunks += [(b"eXIf", exif(orientation)[6:])] if orientation else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def summed(data: bytes) -> bytes:
    """A PNG file with right checksums, so that a reader looks at what damaged chunks say; other files as they are."""
    raw, at = bytearray(data), 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(raw):
        end = at + 8 + int.from_bytes(raw[at : at + 4], "big")
        raw[end : end + 4] = (
            struct.pack(">I", zlib.crc32(raw[at + 4 : end])) if end + 4 <= len(raw) else raw[end : end + 4]
        )
        at = end + 4
    return bytes(raw)


def tiff(samples: np.ndarray, depth: int, *, orientation: int = 0) -> bytes:
    """An uncompressed TIFF file of samples `[h, w, 1 or 3]` of 8 or 16 bits."""
    height, width, channels = samples.shape
    pixels = samples.astype("<u2" if depth == 16 else "u1").tobytes()
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: 2 if channels == 3 else 1, 273: 0, 274: orientation}
    tags |= {277: channels, 278: height, 279: len(pixels), 284: 1}
    tags = {tag: value for tag, value in tags.items() if tag != 274 or orientation}
    end = 8 + 2 + 12 * len(tags) + 4
    tags[273] = end + 6
    rows = b"".join(
        struct.pack("<HHII", tag, 3, 3, end) if tag == 258 and channels == 3 else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in sorted(tags.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + struct.pack("<I3H", 0, *[depth] * 3) + pixels


def exif(orientation: int) -> bytes:
    """An EXIF block that says nothing but how the camera was held."""
    block = Image.Exif()
    block[0x0112] = orientation
    return bytes(block.tobytes())


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows of pixels that carry an EXIF orientation; 1 and what is no orientation change nothing."""
    turned = pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
    turned = turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
    return turned[::-1] if orientation in (3, 4, 7, 8) else turned


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """A file as Pillow writes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _packed(row: np.ndarray, depth: int) -> bytes:
    if depth >= 8:
        return row.astype(">u2" if depth == 16 else "u1").tobytes()
    bits = row.reshape(-1, 1).astype(np.uint8) >> np.arange(depth - 1, -1, -1, dtype=np.uint8) & 1
    return np.packbits(bits).tobytes()
