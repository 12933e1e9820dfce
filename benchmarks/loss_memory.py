"""How much memory one step of an attack takes at many classes: a loss with its gradient, and ERFNet around it.

    python benchmarks/loss_memory.py

Each loss in a fresh process: the most memory while the loss and its gradient in the logits are computed, over what the process
held before with the logits in it. The gradient alone is as large as the logits. `step` is one look of the attacks' loop at an
ERFNet with random weights (masked cross-entropy, judged by wrong pixels), over the process with network and image.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from profile_sea import scene

from robustseg.attacks.steps import _look
from robustseg.core.provenance import commit, device_name, peak_memory, versions
from robustseg.core.types import frozen
from robustseg.losses import pixelwise as losses

LOSSES = (
    "cross_entropy",
    "jensen_shannon",
    "masked_cross_entropy",
    "balanced_masked_cross_entropy",
    "cospgd",
    "margin",
)


def main() -> int:
    """Run, print and write."""
    options = _options()
    torch.set_num_threads(options.threads)
    if options.worker:
        print(_step(options) if options.worker == "step" else _loss(options))
        return 0
    height, width = map(int, options.size.split("x"))
    logits = 4 * options.classes * height * width
    found = {}
    for name in (*LOSSES, "step"):
        command = [sys.executable, *sys.argv, "--worker", name]
        peak = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        found[name] = {"gigabytes": round(peak / 1e9, 2), "logits": round(peak / logits, 2)}
        print(name, found[name], file=sys.stderr, flush=True)
    about = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), **versions()}
    about |= {"device": device_name(torch.device("cpu")), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    settings = {name: value for name, value in vars(options).items() if name not in ("out", "worker")}
    record = {"logits_gigabytes": round(logits / 1e9, 2), "peaks": found, "settings": settings, **about}
    text = json.dumps(record, indent=2)
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--size", default="1024x2048", help="HxW")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "loss_memory.json")
    return parser.parse_args()


def _loss(options: argparse.Namespace) -> int:
    pixelwise: Any = getattr(losses, f"pixel_{options.worker}")
    height, width = map(int, options.size.split("x"))

    def run(height: int) -> int:
        logits = torch.zeros((1, options.classes, height, width)).normal_().requires_grad_()
        labels = torch.randint(options.classes, (1, height, width))
        before = _now()
        (gradient,) = torch.autograd.grad(losses.image_mean(pixelwise(logits, labels), labels).sum(), logits)
        assert gradient.any()
        return peak_memory() - before

    run(8)  # libraries are loaded on their first use
    return run(height)


def _step(options: argparse.Namespace) -> int:
    height, width = map(int, options.size.split("x"))
    network, images, labels = scene(options.classes, 64, 128)
    images, labels = (torch.nn.functional.interpolate(x.float(), (height, width)) for x in (images, labels[None]))
    with frozen(network):
        before = _now()
        objective = losses.OBJECTIVES["masked_cross_entropy"]
        _look(network, images, labels[0].long(), objective, losses.wrong_pixels)
    return peak_memory() - before


def _now() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
