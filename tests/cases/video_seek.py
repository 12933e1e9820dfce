"""Frames by number out of AVI (with B-frames), MPEG-TS and a raw H.264 stream, as dashcams write them. Right: frames() gives
the frames that a player gives, in order and when one is asked for alone.
Reports: anibali/tvl#5, PyAV-Org/PyAV#349, PyAV-Org/PyAV#1054."""

import kit


def check() -> str | None:
    import numpy as np

    import robustseg as rs

    shown = [np.full((48, 64, 3), 20 + 10 * i, np.uint8) for i in range(20)]
    wrong = []
    for name, codec in (("a.avi", "libx264"), ("a.ts", "libx264"), ("a.h264", "libx264"), ("b.avi", "mpeg4")):
        kit.film(name, shown, codec, rate=25)

        def in_order(name=name) -> list[int]:
            data = rs.data(f"frames('{name}')")
            return [kit.level(data[i].image) for i in range(len(data))]

        seen = kit.attempt(in_order)
        alone = kit.attempt(lambda name=name: kit.level(rs.data(f"frames('{name}')")[13].image))
        if (
            seen.error is not None
            or len(seen.value) != 20
            or any(abs(v - 20 - 10 * i) > 6 for i, v in enumerate(seen.value))
        ):
            wrong.append(f"{name} in order: {seen.told()}")
        elif alone.error is not None or abs(alone.value - 150) > 6:
            wrong.append(f"{name} frame 13 alone: {alone.told()} for 150")
    return "; ".join(wrong[:3]) or None


if __name__ == "__main__":
    kit.run(check, "the 20 frames, frame 13 of level 150")
