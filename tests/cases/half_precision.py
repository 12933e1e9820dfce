"""A module whose weights are float16 (as a checkpoint for deployment holds them) meets float32 images. Right: measured, or
one sentence and exit 2; no traceback. Report: haichen-ber/IoU-S-Attack#3 (networks in half precision)."""

from pathlib import Path

import kit


def check() -> str | None:
    Path("halved.py").write_text(
        "import nets\ndef build():\n    return nets.build().half()\ndef brain():\n    return nets.build().bfloat16()\n"
    )
    kit.pairs("a")
    wrong = []
    for name in ("build", "brain"):
        ran = kit.inside(
            "evaluate",
            "--network",
            kit.tiny(f"halved:{name}"),
            "--data",
            kit.folder(),
            "--perturbation",
            "fgsm(budget='linf:2/255')",
            "--out",
            name,
        )
        if ran.code == 0 and kit.summary(name)[0]["miou"] < 0.99:
            wrong.append(f"{name}: mIoU {kit.summary(name)[0]['miou']:.3f}")
        elif ran.code and not ran.refused:
            wrong.append(f"{name}: {ran.told()}")
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "mIoU 1.0, or one sentence and exit 2")
