"""A stream that ends before the quiet frames at its start do (8 frames, --quiet 50), and one that ends before the injected
attack begins (--from 150): nothing was judged. Right: a refusal, or a sentence that says so; 'No alarm in 8 frames.' alone
reads as an all-clear. Found while going through PyAV-Org/PyAV#1597 (a user who watches streams)."""

import re

import kit

SAID = re.compile(
    r"quiet|never|not judged|nothing was|no frame was|no verdict|too (few|short)|fewer|shorter|warning|did not begin|before the attack|not reached|no attack",
    re.I,
)


def check() -> str | None:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    for i in range(8):
        kit.save(f"drive/{i:03d}.png", np.roll(noise, i, 1))
    wrong = []
    for name, more in (
        ("quiet 50", ("--quiet", "50")),
        ("attack from 150", ("--quiet", "4", "--attack", "fgsm(budget='linf:8/255')", "--from", "150")),
    ):
        ran = kit.inside(
            "monitor",
            "--triplet",
            "zoo:triplet-streets",
            "--input",
            "drive",
            "--no-video",
            "--out",
            name.replace(" ", "-"),
            *more,
        )
        if ran.code:
            wrong += [] if ran.refused else [f"{name}: {ran.told()}"]
        elif not any(SAID.search(line) for line in ran.text.splitlines() if "timeline:" not in line):
            wrong.append(f"{name}: exit 0, '{next((x for x in ran.out.splitlines() if 'alarm' in x.lower()), '')}'")
    return "; ".join(wrong) or None


if __name__ == "__main__":
    kit.run(check, "a refusal, or a sentence that nothing was judged (no attack was made)")
