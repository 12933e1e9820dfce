"""Does the batch size change what attacks find? Float32 rounds differently in batches, and a sign makes much of little.

    python benchmarks/batch_sizes.py

The same images are attacked in batches of several sizes, with the fast copy that `evaluate` uses, and counted on the
network itself. Exit code 1 where two sizes are more than 0.1 points of pooled mIoU or, on any image, more than 1 point of
pixel accuracy apart. In float64 the images are equal bit for bit: tests/attacks/test_every_attack.py.
"""

import argparse
import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustseg.api import data as open_data
from robustseg.api import network as build_network
from robustseg.api import perturbation as build_perturbation
from robustseg.core.provenance import commit, device_name, versions
from robustseg.core.random import ImageRng
from robustseg.core.types import Network
from robustseg.datasets.views import Resized, Spread, batches
from robustseg.networks.fast import fast
from robustseg.results.metrics import count, miou
from robustseg.results.record import Counts

LIMITS = {"miou_points": 0.1, "accuracy_points": 1.0}
ATTACKS = [
    "pgd(budget='linf:0.5/255', steps=20)",
    "cospgd(budget='linf:0.5/255', steps=20)",
    "sea(budget='linf:0.5/255', steps=10)",
]


def main() -> int:
    """Run, print and write; the exit code says whether every attack is within the limits."""
    options = _options()
    torch.set_num_threads(options.threads)
    network = build_network(options.network).eval()
    quick = fast(network)
    height, width = map(int, options.size.split("x"))
    data = Resized(Spread(open_data(options.data), options.images), (height, width))
    found = {}
    for spec in options.attack or ATTACKS:
        counts, perturbed = zip(*(_attacked(network, quick, data, spec, size) for size in options.batch), strict=True)
        found[spec] = _apart(counts, perturbed)
        print(spec, json.dumps(found[spec]), file=sys.stderr, flush=True)
    met = all(row[name] <= limit for row in found.values() for name, limit in LIMITS.items())
    about = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), **versions()}
    about |= {"device": device_name(torch.device("cpu")), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    text = json.dumps({"met": met, "attacks": found, "limits": LIMITS, "settings": settings, **about}, indent=2)
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="zoo:erfnet-camvid", help="spec")
    parser.add_argument("--data", default="camvid(root='data/camvid', split='test')", help="spec")
    parser.add_argument("--size", default="180x240", help="HxW")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--attack", action="append", help="spec; more than one may be given")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 3, 8], help="batch sizes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "batch_sizes.json")
    return parser.parse_args()


def _attacked(network: Network, quick: Network, data: Any, spec: str, size: int) -> tuple[Counts, torch.Tensor]:
    attack, parts, images = build_perturbation(spec), [], []
    for batch in batches(data, size):
        images.append(attack(quick, batch.images, batch.labels, rng=ImageRng(0, batch.ids)))
        with torch.no_grad():
            predictions = torch.cat([network.predict(image[None]) for image in images[-1]])
        parts.append(count(batch.labels.numpy(), predictions.numpy(), batch.ids, len(data.label_space)))
    return sum(parts[1:], parts[0]), torch.cat(images)


def _apart(counts: tuple[Counts, ...], perturbed: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """How far the sizes are apart, at most: mIoU and accuracy in points, values that differ as a share."""
    mious = [100 * miou(c) for c in counts]
    accuracy = np.stack([100 * c.tp.sum(1) / (c.tp + c.fn).sum(1) for c in counts])
    others = [float((images != perturbed[0]).double().mean()) for images in perturbed[1:]]
    return {
        "miou": [round(value, 3) for value in mious],
        "miou_points": round(max(mious) - min(mious), 4),
        "accuracy_points": round(float(np.ptp(accuracy, axis=0).max()), 4),
        "median_accuracy_points": round(float(np.median(np.ptp(accuracy, axis=0))), 4),
        "other_values": round(max(others, default=0.0), 5),
    }


if __name__ == "__main__":
    sys.exit(main())
