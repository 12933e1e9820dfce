"""Counts to figures: IoU, mIoU, pixel accuracy, Q, and intervals. Counts first, ratios last; no torch.

Classes without a labelled pixel are left out by default (`absent="unlabelled"`), so that a clean and a perturbed run
over the same images average over the same classes. `absent="untouched"` leaves out only classes that are neither
labelled nor predicted, as many scripts do. Absent is NaN, never 0.

Every figure takes `images`, the indices to use (repeats count twice), so that a sequence apart or a bootstrap draw is
the same code as the whole set.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.labels import IGNORE
from robustseg.results.record import Counts

Indices = Sequence[int] | np.ndarray
"""Which images to use, by position."""


def count(labels: np.ndarray, predictions: np.ndarray, ids: Sequence[str], classes: int) -> Counts:
    """Count labels against predictions.

    Args:
        labels: integers `[n, h, w]`, 0 .. classes - 1 or 255 (not counted).
        predictions: integers `[n, h, w]`; what is no class falls into the last column.
        ids: n image ids.
        classes: k.

    Returns:
        `Counts` with the confusion `[k, k + 1]` over all images and tp, fp, fn per image.

    Raises:
        ShapeError: the shapes differ. RobustsegError: a label that is neither a class nor 255.
    """
    if labels.shape != predictions.shape or len(labels) != len(ids) or labels.ndim != 3:
        raise ShapeError(
            f"expected labels and predictions [{len(ids)}, h, w], got {labels.shape} and {predictions.shape}"
        )
    total = np.zeros((classes, classes + 1), np.int64)
    tp, fp, fn = (np.zeros((len(ids), classes), np.int64) for _ in range(3))
    for i, (truth, guess) in enumerate(zip(labels, predictions, strict=True)):
        confusion = _confusion(truth, guess, ids[i], classes)
        total += confusion
        tp[i] = np.diagonal(confusion)
        fn[i] = confusion.sum(1) - tp[i]
        fp[i] = confusion[:, :classes].sum(0) - tp[i]
    return Counts(tuple(ids), total, tp, fp, fn)


def _confusion(truth: np.ndarray, guess: np.ndarray, name: str, classes: int) -> np.ndarray:
    # One row more for void and one column more for "no class", then a single bincount over row * width + column.
    width = classes + 1
    narrow = np.uint16 if width * width <= np.iinfo(np.uint16).max else np.int64
    row, column = _narrowed(truth, narrow), _narrowed(guess, narrow)
    wrong = (row >= classes) & (row != IGNORE) if classes < IGNORE else row > IGNORE
    if wrong.any():
        raise RobustsegError(
            f"expected labels 0 to {classes - 1} or {IGNORE} (void), got {int(truth.ravel()[wrong][0])} in '{name}'; "
            "try the label map of this data set, or its class list"
        )
    np.minimum(row, classes, out=row)
    np.minimum(column, classes, out=column)
    row *= narrow(width)
    row += column
    return np.bincount(row, minlength=width * width).reshape(width, width)[:classes].astype(np.int64)


def _narrowed(labels: np.ndarray, narrow: type) -> np.ndarray:
    """A flat copy in another type; what it cannot hold becomes its largest value, which is no class."""
    largest = np.iinfo(narrow).max
    if labels.size and not 0 <= labels.min() <= labels.max() <= largest:
        labels = np.where((labels < 0) | (labels > largest), largest, labels)
    return labels.astype(narrow).ravel()


class Totals(NamedTuple):
    """True positives, false positives and false negatives of each class, int64 `[k]`."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray


def totals(counts: Counts, images: Indices | None = None) -> Totals:
    """Sums over the images (all by default)."""
    index = slice(None) if images is None else np.asarray(images, np.int64)
    return Totals(counts.tp[index].sum(0), counts.fp[index].sum(0), counts.fn[index].sum(0))


def class_iou(counts: Counts, images: Indices | None = None, *, absent: str = "unlabelled") -> np.ndarray:
    """Intersection over union of each class, pooled over the images, float64 `[k]`, NaN where absent."""
    return _iou(totals(counts, images), absent)


def miou(counts: Counts, images: Indices | None = None, *, absent: str = "unlabelled") -> float:
    """Pooled mIoU: the mean IoU of the present classes over one confusion matrix of the images."""
    return _mean(class_iou(counts, images, absent=absent))


def image_miou(counts: Counts, *, absent: str = "unlabelled") -> np.ndarray:
    """mIoU of each image over the classes present in it, float64 `[n]`."""
    values = _iou(Totals(counts.tp, counts.fp, counts.fn), absent)
    known = ~np.isnan(values)
    return np.divide(np.nansum(values, 1), known.sum(1), out=np.full(len(values), np.nan), where=known.any(1))


def miou_per_image(counts: Counts, images: Indices | None = None, *, absent: str = "unlabelled") -> float:
    """Mean over images of the mIoU of each (NmIoU of Halmosi et al. 2024, by the formula)."""
    values = image_miou(counts, absent=absent)
    return _mean(values if images is None else values[np.asarray(images, np.int64)])


def pixel_accuracy(counts: Counts, images: Indices | None = None) -> float:
    """Share of labelled pixels that are right."""
    tp, _, fn = totals(counts, images)
    labelled = int((tp + fn).sum())
    return float(tp.sum() / labelled) if labelled else math.nan


def class_recall(counts: Counts, images: Indices | None = None) -> np.ndarray:
    """Share of each class's labelled pixels that are found, float64 `[k]`, NaN where absent."""
    tp, _, fn = totals(counts, images)
    return np.divide(tp, tp + fn, out=np.full(len(tp), np.nan), where=tp + fn > 0)


def q(perturbed: Counts, clean: Counts, images: Indices | None = None, *, absent: str = "unlabelled") -> float:
    """mIoU ratio perturbed / clean over the same images (Klingner et al. 2020; IoU ratio of Arnab et al. 2018).

    Raises:
        RobustsegError: the two are not over the same images.
    """
    if perturbed.ids != clean.ids:
        raise RobustsegError(
            f"expected the same images in both runs, got {len(perturbed.ids)} and {len(clean.ids)}; "
            "try the same --images and data spec"
        )
    below = miou(clean, images, absent=absent)
    return miou(perturbed, images, absent=absent) / below if below > 0 else math.nan


class Worst(NamedTuple):
    """The worst mIoU that was found over a set: which member each image takes, the mIoU, and what none can be below.

    Args:
        choice: int64 `[n]`, the position of a member.
        miou: of that choice.
        bound: no choice has a smaller mIoU; the smallest lies between `bound` and `miou`.
    """

    choice: np.ndarray
    miou: float
    bound: float


def worst(members: Sequence[Counts], *, seed: int = 0) -> Worst:
    """Give each image the member that makes the pooled mIoU of the whole set small; classes are those of the labels.

    Greedy: all images start at the member with the smallest mIoU; in a shuffled order each takes the member that makes
    the mIoU of the set smallest, until a round gains less than 1e-6. Bound: for one class alone the smallest
    `sum tp / sum (tp + fp + fn)` is found exactly, and the mean of these minima is at most the mIoU of any choice.

    Args:
        members: counts of the same images under several perturbations. seed: of the order.

    Returns:
        The choice with its mIoU and bound; both are NaN where nothing is labelled.

    Raises:
        RobustsegError: there is no member, or they are not over the same images and labels.

    Source: Croce, Singh, Hein, ECCV 2024 (greedy); Dinkelbach, Management Science 1967 (the minimum of a ratio).
    """
    _require_same_labels(members)
    labelled = (members[0].tp + members[0].fn).sum(0) > 0
    tp = np.stack([m.tp for m in members])[..., labelled]
    union = np.stack([m.tp + m.fp + m.fn for m in members])[..., labelled]
    images = len(members[0].ids)
    if not labelled.any():
        return Worst(np.zeros(images, np.int64), math.nan, math.nan)
    alone = (tp.sum(1) / union.sum(1)).mean(1)
    choice = np.full(images, alone.argmin())
    above, below = tp[choice[0]].sum(0), union[choice[0]].sum(0)
    order, before, now = np.random.default_rng(seed), math.inf, float(alone.min())
    while before - now >= 1e-6:
        before = now
        for i in order.permutation(images):
            own = choice[i]
            tops, bottoms = above - tp[own, i] + tp[:, i], below - union[own, i] + union[:, i]
            values = (tops / bottoms).mean(1)
            best = values.argmin()
            if values[best] < values[own]:  # of equals the own one stays
                choice[i], above, below = best, tops[best], bottoms[best]
        now = float((above / below).mean())
    minima = [_smallest_ratio(tp[..., c], union[..., c]) for c in range(tp.shape[2])]
    return Worst(
        choice, now, min(now, float(np.mean(minima)))
    )  # they may differ in the last digit where both are exact


def _smallest_ratio(tops: np.ndarray, bottoms: np.ndarray) -> float:
    """The smallest `sum tops / sum bottoms` over all choices of one row a column, `[m, n]` each."""
    before, now, rows = math.inf, tops[0].sum() / bottoms[0].sum(), np.arange(tops.shape[1])
    while now < before:
        choice = (tops - now * bottoms).argmin(0)
        before, now = now, tops[choice, rows].sum() / bottoms[choice, rows].sum()
    return float(min(before, now))


def worst_pixel_accuracy(members: Sequence[Counts]) -> float:
    """Share of labelled pixels that are right where each image takes the member with the fewest; NaN without labels.

    Raises:
        RobustsegError: there is no member, or they are not over the same images and labels.
    """
    _require_same_labels(members)
    labelled = int((members[0].tp + members[0].fn).sum())
    fewest = np.stack([m.tp.sum(1) for m in members]).min(0)
    return float(fewest.sum() / labelled) if labelled else math.nan


def _require_same_labels(members: Sequence[Counts]) -> None:
    first = members[0] if members else None
    if first is None or any(
        m.ids != first.ids or not np.array_equal(m.tp + m.fn, first.tp + first.fn) for m in members
    ):
        raise RobustsegError(
            f"expected counts over the same images and labels, got {len(members)} that differ; "
            "try runs with the same --images, --size and data spec"
        )


def psnr(rms: Sequence[float] | np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: the mean over images of `-20 log10(rms)`, images in [0, 1].

    Args:
        rms: root mean square of the change of each image. An unchanged one has no ratio (it is infinite) and is left
            out, as is NaN; infinite where all are unchanged, NaN where there are none.
    """
    values = np.asarray(rms, np.float64)
    values = values[~np.isnan(values)]
    changed = values[values > 0]
    if len(changed):
        return float(np.mean(-20 * np.log10(changed)))
    return math.inf if len(values) else math.nan


def sequence_of(image_id: str) -> str:
    """The sequence of a frame: what stands before the last underscore of its id."""
    return image_id.rpartition("_")[0]


def sequences(ids: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the images of each sequence, in order of appearance."""
    groups: dict[str, list[int]] = {}
    for i, image_id in enumerate(ids):
        groups.setdefault(sequence_of(image_id), []).append(i)
    return groups


class Interval(NamedTuple):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


def resample(
    counts: Counts, images: Indices | None = None, *, block: int = 15, draws: int = 1000, seed: int = 0
) -> Counts:
    """Bootstrap draws as counts: one row a draw, so that `image_miou` of it is the pooled mIoU of each draw.

    Frames a second apart are not independent, so whole blocks of one sequence are drawn with replacement until the
    sample has as many images as the set. Blocks wrap around within their sequence, so that its first and last frames
    count as much as the others and the interval is not shifted (circular blocks: Politis & Romano 1992). Two runs
    over the same images get the same draws, so the difference of their rows is paired.

    Args:
        counts: of the run. images: indices to draw from, all by default.
        block: frames a block. draws: bootstrap samples. seed: of the draws.

    Returns:
        `Counts` with `draws` rows, or none where there are fewer than two blocks of images.
    """
    index = np.arange(len(counts.ids)) if images is None else np.asarray(images, np.int64)
    times = _times(tuple(counts.ids[i] for i in index), block, draws, seed)
    # float64 products of whole numbers are exact up to 2^53 pixels, and much faster than int64 ones
    tp, fp, fn = ((times @ a[index].astype(np.float64)).astype(np.int64) for a in (counts.tp, counts.fp, counts.fn))
    names = tuple(f"draw_{i}" for i in range(len(times)))
    return Counts(names, np.zeros_like(counts.confusion), tp, fp, fn)


def resample_mean(
    values: np.ndarray, ids: Sequence[str], *, block: int = 15, draws: int = 1000, seed: int = 0
) -> np.ndarray:
    """The mean over images of `values` `[n]` in each draw of `resample`, float64 `[draws]`; empty for fewer than two blocks."""
    return _times(tuple(ids), block, draws, seed) @ np.asarray(values, np.float64) / max(1, len(ids))


def interval(value: float, samples: np.ndarray, *, level: float = 0.95) -> Interval:
    """Percentile interval around a value from samples of it; NaN where there is no sample."""
    return Interval(value, *_quantiles(samples, level))


def t_interval(
    value: float, samples: np.ndarray, ids: Sequence[str], *, block: int = 15, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval `value -+ t * error` from the spread of bootstrap samples, for few blocks and for levels far out.

    The error is the standard deviation of the samples, made larger by what drawing from so few blocks loses, and t has
    as many degrees of freedom as such a variance of independent images (Satterthwaite 1946): 3.7 for 40 images and 22 for
    233. Percentiles of 1000 draws know neither.

    Args:
        value: of all images. samples: of each draw of `resample` with these ids, block and seed.
        ids: the image ids. level: of confidence.

    Returns:
        The value and its two ends, NaN where there is no sample.
    """
    error, freedom = standard_error(samples, ids, block=block, seed=seed)
    reach = t_quantile((1 - level) / 2, freedom) * error if freedom else math.nan
    return Interval(value, value - reach, value + reach)


class StandardError(NamedTuple):
    """How far a figure lies from the true one: the standard error, and the degrees of freedom of its t distribution."""

    value: float
    freedom: float


def standard_error(samples: np.ndarray, ids: Sequence[str], *, block: int = 15, seed: int = 0) -> StandardError:
    """The standard error that `t_interval` uses; NaN with no degree of freedom where there is no sample.

    Args:
        samples: of each draw of `resample` with these ids, block and seed. ids: the image ids.
    """
    known = samples[~np.isnan(samples)]
    if not len(known):
        return StandardError(math.nan, 0.0)
    loss, freedom = _variance(tuple(ids), block, len(samples), seed)
    return StandardError(float(known.std()) / math.sqrt(loss), freedom)


@functools.lru_cache(maxsize=8)
def _variance(ids: tuple[str, ...], block: int, draws: int, seed: int) -> tuple[float, float]:
    """Which share of a mean's variance the draws give for independent images, and its degrees of freedom."""
    # as a quadratic form in the values of the images
    form = np.cov(_times(ids, block, draws, seed), rowvar=False) / len(ids) ** 2
    trace = float(np.trace(form))
    return trace * len(ids), trace**2 / float(np.square(form).sum())


@functools.lru_cache(maxsize=256)
def t_quantile(tail: float, freedom: float) -> float:
    """The value that Student's t exceeds with this probability; `t = sqrt(freedom) tan(a)`, a ~ cos^(freedom - 1)."""
    angles = (np.arange(200_000) + 0.5) * (math.pi / 2 / 200_000)
    beyond = np.cumsum(np.cos(angles[::-1]) ** (freedom - 1))
    return math.sqrt(freedom) * math.tan(np.interp(2 * tail, beyond / beyond[-1], angles[::-1]))


def _quantiles(samples: np.ndarray, level: float) -> tuple[float, float]:
    known = samples[~np.isnan(samples)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@functools.lru_cache(maxsize=8)
def _times(ids: tuple[str, ...], block: int, draws: int, seed: int) -> np.ndarray:
    """How often each draw takes each image, float64 `[draws, n]`."""
    times = np.zeros((draws, len(ids)), np.float64)
    chosen = _drawn(ids, block, draws, seed)
    for row, picks in zip(times, chosen, strict=False):
        row += np.bincount(picks, minlength=len(ids))
    times.flags.writeable = False
    return times[: len(chosen)]


@functools.lru_cache(maxsize=8)
def _drawn(ids: tuple[str, ...], block: int, draws: int, seed: int) -> np.ndarray:
    """Image indices of each draw, `[draws, n]`; no draws where there are fewer than two blocks."""
    if len(ids) < 2 * block:
        return np.zeros((0, len(ids)), np.int64)
    # a window starts at every frame and wraps within its sequence; a sequence shorter than a block is one window.
    # Short windows are drawn the more often, so that every frame is expected equally often
    groups = [np.asarray(g) for g in sequences(ids).values()]
    windows = [np.roll(g, -s)[:block] for g in groups for s in range(len(g))]
    share = np.array([1 / len(w) for w in windows])
    most = -(-len(ids) // min(len(w) for w in windows))
    picks = np.random.default_rng(seed).choice(len(windows), size=(draws, most), p=share / share.sum())
    samples = np.stack([np.concatenate([windows[i] for i in row])[: len(ids)] for row in picks])
    samples.flags.writeable = False
    return samples


def _iou(sums: Totals, absent: str) -> np.ndarray:
    if absent not in ("unlabelled", "untouched"):
        raise RobustsegError(f"expected absent='unlabelled' or 'untouched', got '{absent}'")
    union = sums.tp + sums.fp + sums.fn
    present = (sums.tp + sums.fn if absent == "unlabelled" else union) > 0
    return np.divide(sums.tp, union, out=np.full(np.shape(union), np.nan), where=present)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
