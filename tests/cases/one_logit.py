"""A binary network with one logit (sigmoid, object above 0), as many libraries build it for two classes. Right: read as
background and object (mIoU 1.0) and an attack moves it, or a refusal that says that one logit is not read and how to make
two of it. Reports: open-mmlab/mmsegmentation#2201, irfanICMLL/TorchDistiller#3."""

import re
from pathlib import Path

import kit


def check() -> str | None:
    import numpy as np

    Path("single.py").write_text(
        "import torch\nfrom torch import nn\ndef build():\n    c = nn.Conv2d(3, 1, 1)\n    with torch.no_grad():\n"
        "        c.weight.zero_()\n        c.weight[0, 0] = 10.0\n        c.bias.fill_(-5.0)\n    return c\n"
    )
    labels = kit.halves()
    image = np.full((48, 64, 3), 60, np.uint8)
    image[labels == 1, 0] = 190
    kit.save("images/a.png", image + np.random.default_rng(0).integers(0, 12, image.shape).astype(np.uint8))
    kit.save("labels/a.png", labels)
    names, told = ("background", "object"), []
    for spec in (
        kit.tiny("single:build", names),
        kit.tiny("single:build", names, ", logits=1"),
        kit.tiny("single:build", names, ", binary=True"),
    ):
        seen = kit.attempt(lambda spec=spec: kit.evaluate(spec, kit.folder(classes=names)))
        if seen.error is None:
            clean = kit.miou(seen.value)
            hit = kit.attempt(
                lambda spec=spec: kit.miou(
                    kit.evaluate(spec, kit.folder(classes=names), "pgd(budget='linf:96/255', steps=10)")
                )
            )
            if clean > 0.999 and hit.error is None and hit.value < 0.5:
                return None
            told.append(f"mIoU {clean:.3f} clean, {hit.told()} under a strong attack")
        elif (
            not told
            and seen.refused
            and re.search(r"sigmoid|binary|one logit|1 logit|single logit", str(seen.error), re.I)
        ):
            return None  # of the plain spec; what guessed arguments meet says nothing
        else:
            told.append(seen.told())
    return told[0]


if __name__ == "__main__":
    kit.run(check, "mIoU 1.0 clean and less under attack, or a refusal that names the one logit")
