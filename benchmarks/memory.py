"""Memory of long runs and of large images.

    python benchmarks/memory.py

*Flat*: what the process holds after 200, 1,000 and 2,000 images, while `evaluate` attacks them (with a folder) and while
`monitor` watches them. *Large*: the peak of a clean pass and of one attack step on one image of 4096x2160, beside what
`robustseg.evaluation.memory` judges it to need. Each case runs in a process of its own. Exit code 1 where a run grows by more
than 32 MiB from image 200 to image 2,000, or where a step takes more than it was judged to.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from robustseg import api
from robustseg.core.provenance import commit, device_name, peak_memory, versions
from robustseg.core.types import frozen
from robustseg.evaluation.memory import attack_memory
from robustseg.evaluation.run import evaluate
from robustseg.monitor.stream import Frame, watch_stream

GROWTH = 32 * 2**20
NETWORK = "zoo:erfnet-streets"


def main() -> int:
    """Run, print and write; the exit code says whether the limits are kept."""
    options = _options()
    if options.worker:
        sys.stdout.write(json.dumps(WORKERS[options.worker](options)))
        return 0
    found = {name: _apart(name, options) for name in WORKERS}
    for name, figures in found.items():
        print(f"{name:10}", ", ".join(f"{what} {value / 2**20:,.0f} MiB" for what, value in figures.items()))
    flat = all(figures["growth"] < GROWTH for figures in (found["evaluate"], found["monitor"]))
    judged = found["attack"]["peak"] <= found["attack"]["judged"]
    about = {"commit": commit(), "versions": versions(), "device": device_name(torch.device("cpu"))}
    options.out.write_text(
        json.dumps({**about, "images": options.images, "size": options.size, **found}, indent=1) + "\n"
    )
    return int(not (flat and judged))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", default="2160x4096", help="HxW")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory.json")
    return parser.parse_args()


def _apart(worker: str, options: argparse.Namespace) -> dict[str, int]:
    command = [sys.executable, __file__, "--worker", worker, "--images", str(options.images), "--size", options.size]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return dict(json.loads(done.stdout))


def _evaluate(options: argparse.Namespace) -> dict[str, int]:
    held = Held(options.images)
    data = api.data(f"streets(seed=1, scenes={options.images // 10}, frames=10, size='48x96', split='test')")
    with tempfile.TemporaryDirectory() as folder:
        evaluate(
            api.network(NETWORK),
            data,
            api.perturbation("fgsm(budget='linf:8/255')"),
            folder=folder,
            on_batch=lambda progress: held.after(progress.done),
        )
    return held.figures


def _monitor(options: argparse.Namespace) -> dict[str, int]:
    held = Held(options.images)
    data = api.data(f"streets(seed=1, scenes={options.images // 10}, frames=10, size='48x96', split='test')")
    frames = (Frame(i, data[i].image) for i in range(len(data)))
    triplet = api.network("zoo:triplet-streets")
    with tempfile.TemporaryDirectory() as folder:
        watch_stream(
            triplet,
            frames,
            source="streets",
            folder=folder,
            video=False,
            on_frame=lambda done: held.after(done.number + 1),
        )
    return held.figures


class Held:
    """What the process holds after some images, in bytes."""

    def __init__(self, images: int):
        self.marks = {images // 10: "at a tenth", images // 2: "at half", images: "at the end"}
        self.figures: dict[str, int] = {}

    def after(self, done: int) -> None:
        for mark, name in self.marks.items():
            if done >= mark and name not in self.figures:
                self.figures[name] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if "at the end" in self.figures:
            self.figures["growth"] = self.figures["at the end"] - self.figures["at a tenth"]


def _large(options: argparse.Namespace, *, attack: bool) -> dict[str, int]:
    height, width = map(int, options.size.split("x"))
    network = api.network(NETWORK)
    images = torch.rand(1, 3, height, width)
    with frozen(network):
        judged = attack_memory(network, images)
        before = peak_memory()
        if attack:
            logits = network(images.requires_grad_())
            torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1)), images)
        else:
            with torch.inference_mode():
                network.predict(images)
    return {"peak": peak_memory() - before, **({"judged": judged} if attack else {})}


WORKERS: dict[str, Callable[[argparse.Namespace], dict[str, int]]] = {
    "evaluate": _evaluate,
    "monitor": _monitor,
    "clean": lambda options: _large(options, attack=False),
    "attack": lambda options: _large(options, attack=True),
}

if __name__ == "__main__":
    sys.exit(main())
