"""Two images whose names become one when unsafe characters are replaced ('cam 1' and 'cam_1', or two in Japanese) are
measured with --save-images. Right: two files, and the same mIoU as without saving.
Reports: danny-avila/LibreChat#8792, RhetTbull/osxphotos#515, alexei-led/ccgram#160."""

import shutil
from pathlib import Path

import kit


def check() -> str | None:
    import numpy as np

    wrong = []
    for names in (("cam 1", "cam_1"), ("日", "月")):
        for place in ("images", "labels", "kept", "run"):
            shutil.rmtree(place, ignore_errors=True)
        for i, name in enumerate(names):
            kit.pairs([name], np.full((48, 64), i, np.uint8))
        noise = "gaussian(rms='2/255')"
        bare = kit.miou(kit.evaluate(kit.tiny(), kit.folder(), noise))
        seen = kit.attempt(
            lambda: kit.evaluate(kit.tiny(), kit.folder(), f"saved(perturbation={noise}, folder='kept')")
        )
        if seen.error is not None:
            wrong += [] if seen.refused else [f"{names}: {seen.told()}"]
            continue
        files = len(list(Path("kept").rglob("*.png")))
        if files < 2 or abs(kit.miou(seen.value) - bare) > 0.01:
            wrong.append(
                f"{names}: mIoU {kit.miou(seen.value):.1%} with saved images, {bare:.1%} without, {files} files"
            )
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "two files and the mIoU of the run without saving")
