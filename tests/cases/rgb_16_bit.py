"""A PNG of 16 bits a channel in colour, as 12-bit cameras write it (values 0 to 4095). Right: refused like 16-bit grey, or
read at its own depth (value / 65535, or / 4095); not cut to its upper 8 bits in silence. Found by feeding odd files."""

import struct
import zlib
from pathlib import Path

import kit


def check() -> str | None:
    import numpy as np

    import robustseg as rs

    values = np.random.default_rng(0).integers(0, 4096, (24, 36, 3)).astype(">u2")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    head = struct.pack(">IIBBBBB", 36, 24, 16, 2, 0, 0, 0)
    Path("images").mkdir()
    Path("images/a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    seen = kit.attempt(lambda: rs.data("frames('images')")[0].image.permute(1, 2, 0).numpy())
    if seen.error is not None:
        return None if seen.refused else seen.told()
    for top in (65535, 4095):
        if np.abs(seen.value - values.astype(np.float64) / top).max() < 2 / top:
            return None
    return f"{len(np.unique(seen.value))} levels of {len(np.unique(values))}, without a word"


if __name__ == "__main__":
    kit.run(check, "a refusal, or the values at their own depth")
