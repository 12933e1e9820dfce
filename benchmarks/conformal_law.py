"""Do false alarms on `streets` follow the law that split conformal prediction states? One frame a scene, many resplits.

    python benchmarks/conformal_law.py --scenes 1500 --size 96x192 --splits 200

Each resplit fits the threshold on 1,000 scenes and counts alarms on the others. Of exchangeable scores without ties any
resplit follows the beta-binomial law, so this tests the threshold, its convention (`score >= t`) and how much ties of a
discrete score take away; what it cannot test is exchangeability, which independent scenes have by construction. The
p-value is of a chi-square statistic over eight bins, against counts drawn from the law. Exit code 1 under 0.01.
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
from robustseg.core.provenance import commit, device_name, versions
from robustseg.monitor import conformal
from robustseg.monitor.calibration import suspicions

BINS = 8


def main() -> int:
    """Score, split, count, write; the exit code says whether the counts follow the law."""
    options = _options()
    torch.set_num_threads(1)
    triplet = build_network(options.triplet)
    halves = (
        f"streets(seed={s}, scenes={options.scenes // 2}, frames=1, size='{options.size}', split='val')" for s in (7, 8)
    )
    data = open_data(f"joined({', '.join(halves)})")
    scores = suspicions(triplet, data, batch_size=8)["against_teacher"]
    rows = [_row(scores, rate, options) for rate in options.rates]
    about = {"command": shlex.join(["python", *sys.argv]), "commit": commit(), **versions()}
    about |= {"device": device_name(torch.device("cpu")), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    distinct = len(np.unique(scores))
    record = {"rows": rows, "distinct_scores": distinct, "data": data.spec, "settings": settings, **about}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    print(json.dumps({"rows": rows, "distinct_scores": distinct}, indent=1))
    return 0 if all(row["p"] >= 0.01 for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplet", default="zoo:triplet-streets", help="spec")
    parser.add_argument("--scenes", type=int, default=1500)
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--size", default="96x192", help="HxW")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "conformal_law.json")
    return parser.parse_args()


def _row(scores: np.ndarray, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(options.splits):
        order = rng.permutation(scores)
        seen, new = order[: options.calibration], order[options.calibration :]
        counts.append(int((new >= conformal.threshold(seen, rate)).sum()))
    images = len(scores) - options.calibration
    law = conformal.law(images, calibration=options.calibration, ranks=conformal.ranks(options.calibration, rate))
    mean = float(law @ np.arange(images + 1))
    deviation = float(np.sqrt(law @ (np.arange(images + 1) - mean) ** 2))
    edges = np.unique(np.searchsorted(law.cumsum(), np.arange(1, BINS) / BINS))
    expected = options.splits * np.add.reduceat(law, [0, *(edges + 1)])

    def distance(found: np.ndarray) -> float:
        observed = np.bincount(np.searchsorted(edges, found), minlength=len(expected))
        return float(((observed - expected) ** 2 / expected).sum())

    drawn = rng.choice(images + 1, (5000, options.splits), p=law / law.sum())
    ours = distance(np.array(counts))
    return {
        "rate": rate,
        "mean": float(np.mean(counts)),
        "stated_mean": mean,
        "deviation": float(np.std(counts, ddof=1)),
        "stated_deviation": deviation,
        "chi_square": ours,
        "p": float(np.mean([distance(row) >= ours for row in drawn])),
    }


if __name__ == "__main__":
    sys.exit(main())
