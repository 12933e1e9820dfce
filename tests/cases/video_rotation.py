"""A phone film: stored lying, with a display matrix that says by how much to turn it; every player shows it upright. Right:
frames() and the monitor's reader give upright frames for 90, 180 and 270 degrees, or say that the film is turned.
Reports: PyAV-Org/PyAV#570, meta-pytorch/torchcodec#1084, roboflow/inference#1911."""

import re
import struct
from pathlib import Path

import kit

MATRICES = {  # turned by so much anticlockwise when stored; the matrix that turns it back
    1: (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000),
    2: (-0x10000, 0, 0, 0, -0x10000, 0, 0, 0, 0x40000000),
    3: (0, -0x10000, 0, 0x10000, 0, 0, 0, 0, 0x40000000),
}


def check() -> str | None:
    import numpy as np

    import robustseg as rs

    upright = np.full((96, 64, 3), 60, np.uint8)
    upright[:40] = (30, 30, 220)
    wrong = []
    for quarter, matrix in MATRICES.items():
        path = Path(f"{quarter}.mp4")
        kit.film(path, [np.rot90(upright, quarter).copy()] * 4)
        raw = bytearray(path.read_bytes())
        at = raw.find(b"tkhd") + 44  # version and flags, times, id, duration, layer, group, volume come before
        raw[at : at + 36] = struct.pack(">9i", *matrix)
        path.write_bytes(bytes(raw))
        readers = {"frames()": lambda: rs.data(f"frames('{path}')")[0].image}
        try:
            from robustseg.datasets.video import read_frames
        except ImportError:
            pass
        else:
            readers["the monitor's reader"] = lambda: next(iter(read_frames(path))).image
        for name, read in readers.items():
            seen = kit.attempt(read)
            if seen.refused and re.search("turn|rotat", str(seen.error), re.I):
                continue
            if seen.error is not None:
                wrong.append(f"{name} {90 * quarter}: {seen.told()}")
                continue
            blue = (seen.value[2] > seen.value[0] + 0.2).float()
            upper = (
                tuple(seen.value.shape) == (3, 96, 64)
                and float(blue[:36].mean()) > 0.95
                and float(blue[44:].mean()) < 0.05
            )
            if not upper:
                wrong.append(
                    f"{name} {90 * quarter} degrees: shape {tuple(seen.value.shape)}, sky in the upper part {float(blue[:36].mean()):.2f}"
                )
    return "; ".join(wrong[:3]) or None


if __name__ == "__main__":
    kit.run(check, "3x96x64 with the sky above, as a player shows it")
