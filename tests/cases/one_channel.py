"""A network of one input channel (grey) or four meets RGB images. Right: one sentence that names the channels and exit 2, or
a measurement; no traceback. Report: qubvel-org/segmentation_models.pytorch#196 (same kind: an input that does not fit)."""

from pathlib import Path

import kit


def check() -> str | None:
    Path("bands.py").write_text(
        "import nets\ndef grey():\n    return nets.build(channels=1)\ndef four():\n    return nets.build(channels=4)\n"
    )
    kit.pairs("a")
    wrong = []
    for name in ("grey", "four"):
        ran = kit.inside("evaluate", "--network", kit.tiny(f"bands:{name}"), "--data", kit.folder(), "--out", name)
        wrong += [] if ran.code == 0 or ran.refused else [f"{name}: {ran.told()}"]
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "one sentence and exit 2")
