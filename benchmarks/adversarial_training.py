"""Adversarial training against plain training, and against the passes that it must do, in images a second.

    python benchmarks/adversarial_training.py --network zoo:erfnet-camvid

One process, the ways in turns, so that what else the machine does falls on all. The steps are those of
`robustseg.training.train` (augmentation, attack, step, averaged weights) on images of noise. What must be done: a plain step, and
for each step of the attack one forward in evaluation mode and one backward to the images, on the same network in the same
precision and memory layout, timed alone with plain PyTorch. Wants idle cores.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from robustseg.api import network as build_network
from robustseg.cli.shared import parse_size
from robustseg.core.provenance import commit
from robustseg.core.types import Dataset, Network, Sample, frozen
from robustseg.training import Adversary, Recipe
from robustseg.training.fabric import fabric_on
from robustseg.training.loop import Training
from robustseg.training.run import task_of
from robustseg.training.task import Setup


class Noise:
    """As many images of noise with random labels as a batch holds."""

    spec = "noise"

    def __init__(self, network: Network, count: int, size: tuple[int, int]):
        self.label_space, self.ids, self.size = network.label_space, tuple(f"noise_{i}" for i in range(count)), size

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        labels = torch.randint(len(self.label_space), self.size, generator=generator)
        return Sample(torch.rand(3, *self.size, generator=generator), labels, self.ids[index])


def main() -> None:
    """Time every way in turns, print and write."""
    options = _options()
    size = parse_size(options.size)
    assert size
    ways: dict[str, Adversary | None] = {"plain": None}
    for steps in options.steps:
        attack = f"pgd(budget='linf:4/255', steps={steps}, keep='last')"
        ways |= {f"pgd-{steps}": Adversary(attack), f"pgd-{steps}, half": Adversary(attack, 0.5)}
    with tempfile.TemporaryDirectory() as folder:
        clocks = {name: _steps(options, size, adversary, Path(folder)) for name, adversary in ways.items()}
        clocks["pass"] = _passes(options, size)
        timed: dict[str, list[Timed]] = {name: [] for name in clocks}
        for turn in range(options.turns + 1):
            for name, clock in clocks.items():
                timed[name] += [next(clock)][: turn > 0]  # the first turn chooses kernels and fills caches
    plain, once = (float(np.median([t.seconds for t in timed[name]])) for name in ("plain", "pass"))
    rows = {name: _row(options.batch_size, timed[name], plain, once) for name in ways}
    for name, row in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    seconds = {name: [round(t.seconds, 4) for t in some] for name, some in timed.items()}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    options.out.write_text(
        json.dumps({"rows": rows, "seconds": seconds, "settings": settings, **_where()}, indent=1) + "\n"
    )


class Timed(NamedTuple):
    """One step: its seconds, and how often each image, on average, went forth and back for the attack."""

    seconds: float
    rounds: float


def _row(batch_size: int, timed: Sequence[Timed], plain: float, once: float) -> dict[str, float]:
    """Medians over steps; a share of the images is drawn, so each step is held against what it must do itself."""
    return {
        "images_per_second": batch_size * len(timed) / sum(t.seconds for t in timed),
        "rounds_of_the_attack": float(np.mean([t.rounds for t in timed])),
        "times_plain": float(np.mean([t.seconds for t in timed])) / plain,
        "share_of_limit": float(np.median([(plain + t.rounds * once) / t.seconds for t in timed])),
    }


def _steps(
    options: argparse.Namespace, size: tuple[int, int], adversary: Adversary | None, folder: Path
) -> Iterator[Timed]:
    """One step after the other."""
    network = build_network(options.network)
    data: Dataset = Noise(network, options.batch_size, size)
    recipe = Recipe(epochs=10**6, batch_size=options.batch_size, crop=size, check_every=10**6)
    fabric = fabric_on("cpu", options.precision)
    training = Training(task_of(Setup(network, data, data, recipe, fabric), adversary), folder)
    for step in range(10**6):
        start = time.perf_counter()
        passes = training.step(step).passes
        yield Timed(time.perf_counter() - start, passes / 2 - 1)


def _passes(options: argparse.Namespace, size: tuple[int, int]) -> Iterator[Timed]:
    """One forward and one backward to the images of a batch."""
    network = build_network(options.network).to(memory_format=torch.channels_last)
    fabric = fabric_on("cpu", options.precision)
    samples = [Noise(network, options.batch_size, size)[i] for i in range(options.batch_size)]
    images = torch.stack([s.image for s in samples]).contiguous(memory_format=torch.channels_last).requires_grad_()
    labels = torch.stack([s.labels for s in samples])
    while True:
        start = time.perf_counter()
        with frozen(network), fabric.autocast():
            torch.autograd.grad(F.cross_entropy(network(images).float(), labels), images)
        yield Timed(time.perf_counter() - start, 1)


def _where() -> dict[str, Any]:
    return {
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="zoo:erfnet-camvid")
    parser.add_argument("--size", default="180x240")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "adversarial_training.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
