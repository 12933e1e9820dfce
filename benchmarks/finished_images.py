"""Passes that SEA saves because finished images leave: the same attack with and without, on the same images.

    python benchmarks/finished_images.py --budget linf:8/255 --steps 30 --images 8

An image whose every labelled pixel is wrong cannot get worse by pixel accuracy, so it takes no part in later runs. Passes
are counted, and the mIoU of both is measured: the last iterates of a finished image may differ in false positives.
"""

import argparse
import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from robustseg.api import data as open_data
from robustseg.api import network as build_network
from robustseg.api import perturbation
from robustseg.attacks import apgd, steps
from robustseg.core.provenance import commit, device_name, versions
from robustseg.core.random import ImageRng
from robustseg.core.types import Dataset, Network
from robustseg.datasets.views import Resized, Spread, batches
from robustseg.networks.fast import fast
from robustseg.networks.passes import counted
from robustseg.results import metrics
from robustseg.results.record import Counts


def main() -> None:
    """Run both, print and write."""
    options = _options()
    torch.set_num_threads(1)
    network = build_network(options.network).eval()
    height, width = map(int, options.size.split("x"))
    data = Resized(Spread(open_data(options.data), options.images), (height, width))
    found = {"leave": _run(network, data, options)}
    with mock.patch.object(apgd, "ceiling", _never), mock.patch.object(steps, "ceiling", _never):
        found["stay"] = _run(network, data, options)
    saved = 1 - found["leave"]["passes"] / found["stay"]["passes"]
    about = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), **versions()}
    about |= {"device": device_name(torch.device("cpu")), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    record = {"passes_saved": saved, **found, "settings": settings, **about}
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"passes_saved": saved, **found}, indent=1))


def _never(judge: object) -> float:
    return float("inf")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="zoo:erfnet-camvid", help="spec")
    parser.add_argument("--data", default="camvid(root='data/camvid', split='test')", help="spec")
    parser.add_argument("--size", default="180x240", help="HxW")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--budget", default="linf:8/255")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finished_images.json")
    return parser.parse_args()


def _run(network: Network, data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    attack, quick = perturbation(f"sea(budget='{options.budget}', steps={options.steps})"), fast(network)
    counts, passes, finished = Counts.empty(len(network.label_space)), 0, 0
    for batch in batches(data, options.batch_size):
        with counted([quick]) as seen:
            images = attack(quick, batch.images, batch.labels, rng=ImageRng(0, batch.ids))
        passes += seen.forwards + seen.backwards
        with torch.inference_mode():
            predictions = network.predict(images).numpy()
        part = metrics.count(batch.labels.numpy(), predictions, batch.ids, len(network.label_space))
        finished += int((part.tp.sum(1) == 0).sum())
        counts += part
    return {
        "passes": passes,
        "finished_images": finished,
        "miou": metrics.miou(counts),
        "pixel_accuracy": metrics.pixel_accuracy(counts),
    }


if __name__ == "__main__":
    main()
