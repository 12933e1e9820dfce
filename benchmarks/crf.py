"""How long a mean-field iteration takes, and how near the sampled bilateral sum comes to the sum over all pixels.

    python benchmarks/crf.py

Time: of an image and iteration at 480x360 and 240x180 with 11 classes, forward alone and forward with backward in images and
logits, as processor time and as a share of one forward pass of the ERFNet of the zoo at that size. Accuracy: on images of `streets`
with the shipped network, marginals with few `senders` against those with all pixels (`--exact` size: the exact kernel holds one number a pair of
pixels), with theta_alpha for that size.
"""

import argparse
import functools
import json
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import robustseg as rs
from robustseg.core.provenance import commit, device_name, versions
from robustseg.networks.crf import MeanFieldCRF

SIZES = ((360, 480), (180, 240))
NETWORK = "zoo:erfnet-streets"


def main() -> int:
    """Run, print and write."""
    options = _options()
    torch.set_num_threads(options.threads)
    network = rs.network(NETWORK)
    found: dict[str, Any] = {f"{w}x{h}": _times(network, h, w, options.repeats) for h, w in SIZES}
    found["accuracy"] = _accuracy(network, options)
    about = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), **versions()}
    about |= {"device": device_name(torch.device("cpu")), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    text = json.dumps({**found, "settings": settings, **about}, indent=2)
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--exact", default="90x120", help="HxW")
    parser.add_argument("--senders", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "crf.json")
    return parser.parse_args()


def _times(network: rs.Network, height: int, width: int, repeats: int) -> dict[str, float]:
    """Processor seconds of an image and iteration: the difference of six and one, over five."""
    images = rs.data(f"streets(scenes=1, frames=1, size='{height}x{width}')")[0].image[None]
    logits = torch.randn((1, 11, height, width), generator=torch.Generator().manual_seed(0))

    def run(iterations: int, *, backward: bool) -> None:
        crf = MeanFieldCRF(network, iterations=iterations).requires_grad_(False)
        leaves = [x.clone().requires_grad_(backward) for x in (logits, images)]
        result = crf.log_marginals(*leaves)
        if backward:
            torch.autograd.grad(result.square().mean(), leaves)

    with torch.inference_mode():
        bare = _seconds(lambda: network(images), repeats)
    found = {"erfnet_forward": bare}
    for name, backward in (("forward", False), ("forward_and_backward", True)):
        one, six = (_seconds(functools.partial(run, n, backward=backward), repeats) for n in (1, 6))
        iteration = (six - one) / 5
        found |= {f"{name}_of_one_iteration": iteration, f"{name}_of_five": six - iteration}
        found[f"{name}_of_five_over_erfnet"] = (six - iteration) / bare
    return {key: round(value, 4) for key, value in found.items()}


def _seconds(run: Callable[[], object], repeats: int) -> float:
    run()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


def _accuracy(network: rs.Network, options: argparse.Namespace) -> dict[str, Any]:
    """How far marginals are from the exact ones: largest and mean difference of a probability, share of other labels."""
    height, width = map(int, options.exact.split("x"))
    data = rs.data(f"streets(scenes={options.images}, frames=1, size='{height}x{width}')")
    found: dict[int, list[tuple[float, float, float]]] = {n: [] for n in options.senders}
    moved = []
    with torch.inference_mode():
        for i in range(options.images):
            images = data[i].image[None]
            exact = _marginals(network, images, height * width)
            moved.append(_apart(network(images).softmax(1), exact)[2])
            for n in options.senders:
                found[n].append(_apart(_marginals(network, images, n), exact))
    names = ("largest", "mean", "other_labels")
    means = {
        str(n): dict(zip(names, (float(f"{sum(c) / len(c):.2g}") for c in zip(*rows, strict=True)), strict=True))
        for n, rows in found.items()
    }
    return {"size": options.exact, "labels_that_the_crf_changes": sum(moved) / len(moved), "senders": means}


def _marginals(network: rs.Network, images: Tensor, senders: int) -> Tensor:
    return MeanFieldCRF(network, senders=senders).eval()(images).exp()


def _apart(ours: Tensor, exact: Tensor) -> tuple[float, float, float]:
    change = (ours - exact).abs()
    labels = (ours.argmax(1) != exact.argmax(1)).float()
    return float(change.max()), float(change.mean()), float(labels.mean())


if __name__ == "__main__":
    sys.exit(main())
