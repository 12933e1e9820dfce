"""Data whose every pixel is void (test masks as they are handed out). Right: `evaluate` refuses, or says plainly on the screen
or by a flag that nothing is labelled, and gives no mIoU. Reports: CoinCheung/BiSeNet#55, MichaelFan01/STDC-Seg#89."""

import re

import kit


def check() -> str | None:
    import numpy as np

    for name in "ab":
        kit.save(f"images/{name}.png", kit.colour(kit.halves()))
        kit.save(f"labels/{name}.png", np.full((48, 64), 255, np.uint8))
    wrong = []
    ran = kit.inside(
        "evaluate",
        "--network",
        kit.tiny(),
        "--data",
        kit.folder(),
        "--perturbation",
        "pgd(budget='linf:4/255', steps=2)",
        "--out",
        "run",
    )
    if ran.code:
        wrong += [] if ran.refused else [f"evaluate: {ran.told()}"]
    else:
        rows = kit.summary("run")
        if any(row["miou"] is not None for row in rows):
            wrong.append(f"mIoU {[row['miou'] for row in rows]}")
        if not (
            all("no_labels" in row["flags"] for row in rows)
            or re.search("no label|void|nothing is labelled", ran.text, re.I)
        ):
            wrong.append("not a word that nothing is labelled")
        for words in (("report", "run"), ("compare", "run", "run")):
            more = kit.inside(*words)
            wrong += [] if more.code in (0, 1) or more.refused else [f"{words[0]}: {more.told()}"]
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "no mIoU, and a word that nothing is labelled")
