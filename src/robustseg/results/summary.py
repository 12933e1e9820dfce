"""Records to the short list of figures that scripts read (`summary.json`), and what stands beside it. No torch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from robustseg.results import metrics
from robustseg.results.current import current
from robustseg.results.record import Counts, Record


def summary(records: Sequence[Record], *, absent: str = "unlabelled") -> list[dict[str, Any]]:
    """One object a record, in order: the contract of `DIR/summary.json`.

    Args:
        records: of one run or several.
        absent: which classes are left out; see `robustseg.results.metrics`.

    Returns:
        Objects with `network, source, data, perturbation, images, miou, miou_per_image, pixel_accuracy, q, rms, linf,
        flags, seconds, forwards, backwards`, then `agreement, psnr, linf_median, interval, classes`. Shares are in [0, 1];
        `rms` is the mean over the images, `linf` the largest and `linf_median` what minimum-norm attacks go by; `q` is the mIoU ratio to the clean record of the same network
        and images; `flags` names the raised ones; `interval` is that of `miou` (blocks of 15 frames); `classes` maps
        name to IoU; what is absent is None. Last stand `weights, code, content, started` and `current`: what tells records
        of one name apart, and whether the record is of the folder's present state (`results.current`).
    """
    present = {record.key for record in current(records)}
    return [_summarise(record, clean_of(record, records), absent, record.key in present) for record in records]


def _summarise(record: Record, clean: Record | None, absent: str, present: bool) -> dict[str, Any]:
    counts = record.counts
    return {
        "network": record.network,
        "source": record.source,
        "data": record.data,
        "perturbation": record.perturbation,
        "images": len(record.ids),
        "miou": _or_none(metrics.miou(counts, absent=absent)),
        "miou_per_image": _or_none(metrics.miou_per_image(counts, absent=absent)),
        "pixel_accuracy": _or_none(metrics.pixel_accuracy(counts)),
        "q": _or_none(metrics.q(counts, clean.counts, absent=absent)) if clean else None,
        "rms": _or_none(mean_score(record, "rms")),
        "linf": _or_none(largest_score(record, "linf")),
        "flags": raised(record),
        "seconds": record.seconds,
        "forwards": record.forwards,
        "backwards": record.backwards,
        "agreement": _or_none(mean_score(record, "agreement")),
        "psnr": _or_none(metrics.psnr(_known(record, "rms", None))),
        "linf_median": _or_none(median_score(record, "linf")),
        "interval": _interval(counts),
        "classes": {
            n: _or_none(float(v)) for n, v in zip(record.label_space.names, metrics.class_iou(counts), strict=True)
        },
        **{name: getattr(record, name) for name in ("weights", "code", "content", "started")},
        "current": present,
    }


def _interval(counts: Counts) -> list[float | None]:
    """The ends of the 95 % block-bootstrap interval of the pooled mIoU; None for too few images."""
    found = metrics.interval(metrics.miou(counts), metrics.image_miou(metrics.resample(counts)))
    return [_or_none(found.low), _or_none(found.high)]


def clean_of(record: Record, records: Sequence[Record]) -> Record | None:
    """The clean record that `record` is measured against: same network, data, images, size and precision.

    Where a run was repeated the first one counts. None where there is none, and where the network gave NaN or infinity in
    one of the two: no figure is relative to that.
    """
    found = next((other for other in records if other.clean and conditions(other) == conditions(record)), None)
    return None if found is None or unpredicted(record) or unpredicted(found) else found


def unpredicted(record: Record) -> float:
    """The share of images on which the network gave NaN or infinity; their pixels without a prediction count as wrong."""
    return float(record.flags.get("not_finite") or 0)


def conditions(record: Record) -> tuple[Any, ...]:
    """What must be equal for two records of one network to be comparable."""
    what = record.network, record.weights, record.data, record.label_space.names
    digests = [digest for digest in (record.content, record.code) if digest]
    return *what, record.ids, record.size, record.precision, *digests


def raised(record: Record) -> list[str]:
    """Names of the flags that were raised. False, 0 and None are flags that were looked at and not raised."""
    return [name for name, value in record.flags.items() if value]


def mean_score(record: Record, name: str, images: Sequence[int] | None = None) -> float:
    """Mean of a per-image score over the images (all by default), NaN where it was not measured."""
    known = _known(record, name, images)
    return float(known.mean()) if len(known) else math.nan


def median_score(record: Record, name: str) -> float:
    """Median of a per-image score over all images, NaN where it was not measured."""
    known = _known(record, name, None)
    return float(np.median(known)) if len(known) else math.nan


def largest_score(record: Record, name: str, images: Sequence[int] | None = None) -> float:
    """Largest per-image score over the images (all by default), NaN where it was not measured."""
    known = _known(record, name, images)
    return float(known.max()) if len(known) else math.nan


def _known(record: Record, name: str, images: Sequence[int] | None) -> np.ndarray:
    missing = 0.0 if record.clean and name in ("rms", "linf") else math.nan
    values = np.asarray(record.scores.get(name, [missing] * len(record.ids)), np.float64)
    chosen = values if images is None else values[np.asarray(images, np.int64)]
    return chosen[~np.isnan(chosen)]


class Drop(NamedTuple):
    """How much one image lost: its position in the record, its id, and its mIoU before and after."""

    position: int
    id: str
    before: float
    after: float


def worst_images(record: Record, clean: Record, number: int = 20, *, absent: str = "unlabelled") -> list[Drop]:
    """The images with the largest drop of per-image mIoU, the largest first.

    Raises:
        RobustsegError: the two records are not over the same images.
    """
    metrics.q(record.counts, clean.counts)  # raises unless the images are the same
    before = metrics.image_miou(clean.counts, absent=absent)
    after = metrics.image_miou(record.counts, absent=absent)
    drop = before - after
    order = [int(i) for i in np.argsort(-drop, kind="stable") if not math.isnan(drop[i])]
    return [Drop(i, record.ids[i], float(before[i]), float(after[i])) for i in order[:number]]


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
