"""A film taken apart by a tool that writes 1.png, 2.png, … 12.png. Right: frames(), clip() and the monitor's reader go
through them as 1, 2, 3 … 12, or refuse names of unequal length; 1, 10, 11, 12, 2 … joins frames that are no neighbours.
Reports: roboflow/trackers#558, ChiWeiHsiao/DeepVO-pytorch#37, jfzhang95/pytorch-video-recognition#30."""

import kit


def check() -> str | None:
    import numpy as np

    import robustseg as rs

    for i in range(1, 13):
        kit.save(f"drive/{i}.png", np.full((48, 64, 3), 20 * i, np.uint8))
    wanted, wrong = list(range(1, 13)), []

    def number(image) -> int:
        return round(kit.level(image) / 20)

    def through() -> list[int]:
        data = rs.data("frames('drive')")
        return [number(data[i].image) for i in range(len(data))]

    def clips() -> list[tuple[int, ...]]:
        data = rs.data("clip('drive')")
        return [
            (number(s.extras["previous"]), number(s.image), number(s.extras["next"]))
            for s in (data[i] for i in range(len(data)))
        ]

    seen = kit.attempt(through)
    if not (seen.refused or seen.value == wanted):
        wrong.append(f"frames() {seen.told()}")
    seen = kit.attempt(clips)
    if not (seen.refused or seen.value == [(i - 1, i, i + 1) for i in range(2, 12)]):
        wrong.append(f"clip() {seen.told()}")
    try:
        from robustseg.datasets.video import read_frames
    except ImportError:
        pass
    else:
        seen = kit.attempt(lambda: [number(f.image) for f in read_frames("drive")])
        if not (seen.refused or seen.value == wanted):
            wrong.append(f"the monitor's reader {seen.told()}")
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "1, 2, 3, … 12 and triplets of neighbours")
