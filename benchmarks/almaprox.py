"""ALMA-prox against adv-lib's: the same network, images, share and steps; who needs the smaller change.

    TORCHDYNAMO_DISABLE=1 python benchmarks/almaprox.py --data "camvid(root='data/camvid', split='test')" --size 180x240

Both see the same fast copy of the network; every size and every share of wrong pixels is measured here, on the network
itself. An image that is not broken to the share counts as infinitely large. Theirs runs with its own defaults. Wants
`pip install --no-deps adv-lib`. Exit code 1 where our median is larger.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustseg.api import data as open_data
from robustseg.api import network as build_network
from robustseg.attacks.minimal import almaprox
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import commit, device_name, versions
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Network
from robustseg.datasets.views import Resized, Spread
from robustseg.losses.pixelwise import wrong_pixels
from robustseg.networks.fast import fast


def main() -> int:
    """Run, print and write; the exit code says whether our median is no larger."""
    options = _options()
    torch.set_num_threads(1)
    network = build_network(options.network).eval()
    quick = fast(network)
    height, width = map(int, options.size.split("x"))
    data = Resized(Spread(open_data(options.data), options.images), (height, width))
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for index in range(len(data)):
        batch = Batch.of([data[index]])
        for name, attack in (("ours", _ours), ("theirs", _theirs)):
            start = time.process_time()
            images = attack(quick, batch, options)
            seconds = time.process_time() - start
            rows[name].append(_row(network, batch, images, options.share, seconds))
            print(f"{index + 1}/{len(data)} {name} {rows[name][-1]}", file=sys.stderr, flush=True)
    figures = {name: _figures(found) for name, found in rows.items()}
    met = (figures["ours"]["median"] or float("inf")) <= (figures["theirs"]["median"] or float("inf"))
    about = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), **versions()}
    about |= {"device": device_name(torch.device("cpu")), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    record = {"met": met, **figures, "settings": settings, **about, "images": rows}
    text = json.dumps(record, indent=2)
    print(json.dumps({"met": met, **figures}, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="zoo:erfnet-camvid", help="spec")
    parser.add_argument("--data", default="camvid(root='data/camvid', split='test')", help="spec")
    parser.add_argument("--size", default="180x240", help="HxW")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.99)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "almaprox.json")
    return parser.parse_args()


def _ours(network: Network, batch: Batch, options: argparse.Namespace) -> Tensor:
    how = {"steps": options.steps, "share": options.share, "rng": ImageRng(0, batch.ids)}
    return almaprox(network, batch.images, batch.labels, **how)


def _theirs(network: Network, batch: Batch, options: argparse.Namespace) -> Tensor:
    stub: Any = types.ModuleType("visdom")  # what it draws progress with, which nobody watches here
    stub.Visdom = object
    sys.modules.setdefault("visdom", stub)
    from adv_lib.attacks.segmentation import alma_prox

    valid = batch.labels != IGNORE
    how = {"masks": valid, "num_steps": options.steps, "adv_threshold": options.share}
    found: Tensor = alma_prox(network, batch.images, batch.labels.where(valid, 0), **how)
    return found


@torch.no_grad()
def _row(network: Network, batch: Batch, images: Tensor, share: float, seconds: float) -> dict[str, Any]:
    wrong = float(wrong_pixels(network, images, batch.labels))
    size = 255 * float((images - batch.images).abs().max())
    broken = wrong >= share - 1e-6
    return {
        "id": batch.ids[0],
        "linf_255": round(size, 4),
        "wrong": round(wrong, 5),
        "broken": broken,
        "seconds": round(seconds, 1),
    }


def _figures(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Median L-inf in gray levels of 255 (None: fewer than half are broken), share of broken images, CPU seconds an image."""
    sizes = [row["linf_255"] if row["broken"] else float("inf") for row in rows]
    median = statistics.median_high(sizes)
    return {
        "median": median if median < float("inf") else None,
        "broken": sum(row["broken"] for row in rows) / len(rows),
        "median_wrong": statistics.median(row["wrong"] for row in rows),
        "seconds": statistics.mean(row["seconds"] for row in rows),
    }


if __name__ == "__main__":
    sys.exit(main())
