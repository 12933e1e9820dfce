"""Made-up runs for the tests of what comes after the counting: labels, spoiled predictions, records."""

from pathlib import Path

import numpy as np

from robustseg.core.files import append_line
from robustseg.core.labels import IGNORE, LabelSpace
from robustseg.results import metrics
from robustseg.results.panels import Panel
from robustseg.results.record import Record

SPACE = LabelSpace(
    ("road", "car", "pedestrian", "sky <far>"), ((128, 64, 128), (64, 0, 128), (64, 64, 0), (128, 128, 128))
)
DATA = "camvid(root='data', split='test')"
SPOILS = {
    "gaussian(rms='{}/255')": 0.01,
    "salt_and_pepper(rms='{}/255')": 0.015,
    "fgsm(budget='linf:{}/255')": 0.04,
    "pgd(budget='linf:{}/255', steps=20)": 0.12,
    "pgd(budget='l2:{}', steps=20)": 0.1,
}


def ids(n: int = 40) -> list[str]:
    """A quarter of the images in sequence 0001TP, the others in Seq05VD."""
    return [f"0001TP_{i:04d}" for i in range(n // 4)] + [f"Seq05VD_{i:04d}" for i in range(n - n // 4)]


def labels(n: int = 40) -> np.ndarray:
    """Random labels with a row of void."""
    maps = np.random.default_rng(0).integers(0, len(SPACE), (n, 12, 16))
    maps[:, -1] = IGNORE
    return maps


def spoil(maps: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the pixels at random."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(maps.shape) < share, rng.integers(0, len(SPACE), maps.shape), maps)


def record(
    network: str, perturbation: str, share: float, *, rms: float = 0.0, n: int = 40, seed: int = 1, **changes
) -> Record:  # type: ignore[no-untyped-def]
    """One measurement in which about `share` of the pixels are spoiled."""
    maps = labels(n)
    attack = "budget" in perturbation
    fields = {
        "network": network,
        "source": network,
        "data": DATA,
        "perturbation": perturbation,
        "label_space": SPACE,
        "counts": metrics.count(maps, spoil(maps, share, seed), ids(n), len(SPACE)),
        "scores": {"rms": [rms] * n, "linf": [2 * rms] * n, "agreement": [1 - share] * n},
        "flags": {"zero_gradients": 0.0} if attack else {},
        "files": {"zoo/a.safetensors": "ab" * 32},
        "size": (12, 16),
        "versions": {"robustseg": "0.1.0"},
        "commit": "c0ffee",
        "started": "2025-01-02T03:04:05+00:00",
        "seconds": 1.5,
        "forwards": n,
        "backwards": n if attack else 0,
    }
    return Record(**{**fields, **changes})


def run(networks: tuple[str, ...] = ("zoo:first", "zoo:second"), *, n: int = 40) -> list[Record]:
    """Clean first, then every family at three strengths, for each network; the second is a little better."""
    found = []
    for better, network in enumerate(networks):
        found.append(record(network, "clean", 0.2 - 0.05 * better, n=n))
        for spec, rate in SPOILS.items():
            for strength in (2, 4, 8):
                share = min(0.95, 0.2 - 0.05 * better + rate * strength)
                found.append(record(network, spec.format(strength), share, rms=strength / 255, n=n))
    return found


def write(folder: Path, records: list[Record]) -> Path:
    """A run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in records:
        append_line(folder / "records.jsonl", one.to_json())
    return folder


def panel(of: Record | None = None) -> Panel:
    """The first image of a run, as it looked in one of its records."""
    truth = labels(1)[0].astype(np.uint8)
    picture = np.random.default_rng(3).integers(20, 230, (*truth.shape, 3)).astype(np.uint8)
    before, after = (spoil(truth, share, 5).astype(np.uint8) for share in (0.1, 0.9))
    return Panel(ids()[0], of.key if of else "none", SPACE, picture, picture + np.uint8(5), truth, before, after)
