"""Binary masks as most tools write them, 0 and 255, in a data set of two classes; the network misses a third of the object.
255 is void by default, so every miss counts for nothing and mIoU is 100 %. Right: the true figure, or a refusal, a raised
flag or a warning. Reports: open-mmlab/mmsegmentation#1609, huggingface/transformers#27224."""

import re

import kit


def check() -> str | None:
    import numpy as np

    for i in range(3):
        labels = np.zeros((48, 64), np.uint8)
        labels[10:40, 10 + 5 * i : 40] = 1
        seen = labels.copy()
        seen[30:40] = 0
        kit.save(f"images/{i}.png", kit.colour(seen))
        kit.save(f"labels/{i}.png", labels * 255)
    names = ("background", "object")
    ran = kit.cli(
        "evaluate", "--network", kit.tiny("nets:build2", names), "--data", kit.folder(classes=names), "--out", "run"
    )
    if ran.refused:
        return None
    if ran.code:
        return ran.told()
    row = kit.summary("run")[0]
    flags = [flag for flag in row["flags"] if re.search("void|label|class|absent|empty|ignor", flag)]
    if flags or re.search(r"\bvoid\b|\bvalue 255\b|(?<!/)\b255\b", ran.err + ran.out):
        return None
    return None if row["miou"] < 0.9 else f"mIoU {row['miou']:.1%}, flags {row['flags']}, and not a word"


if __name__ == "__main__":
    kit.run(check, "mIoU below 90 % (object 66.7 %), or a refusal, flag or warning about 255")
