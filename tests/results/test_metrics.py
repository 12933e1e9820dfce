"""Metrics: counts equal a plain loop and torchmetrics exactly; policies, sequences and intervals."""

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.labels import IGNORE
from robustseg.results import metrics
from robustseg.results.record import Counts

K = 5


def maps(n: int = 4, h: int = 7, w: int = 9, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels with void and predictions with values that are no class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, (n, h, w))
    labels[rng.random(labels.shape) < 0.1] = IGNORE
    predictions = rng.integers(0, K + 2, (n, h, w))
    predictions[rng.random(labels.shape) < 0.05] = IGNORE
    return labels, predictions, [f"{'ab'[i % 2]}_{i}" for i in range(n)]


def by_hand(labels: np.ndarray, predictions: np.ndarray) -> list[list[int]]:
    table = [[0] * (K + 1) for _ in range(K)]
    for truth, guess in zip(labels.ravel().tolist(), predictions.ravel().tolist(), strict=True):
        if truth != IGNORE:
            table[truth][guess if guess < K else K] += 1
    return table


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_counts_equal_a_plain_loop(dtype: type) -> None:
    labels, predictions, ids = maps()
    counts = metrics.count(labels.astype(dtype), predictions.astype(dtype), ids, K)
    assert counts.confusion.tolist() == by_hand(labels, predictions)
    for i in range(len(ids)):
        own = np.array(by_hand(labels[i], predictions[i]))
        hits = np.diagonal(own)
        assert counts.tp[i].tolist() == hits.tolist()
        assert counts.fn[i].tolist() == (own.sum(1) - hits).tolist()
        assert counts.fp[i].tolist() == (own[:, :K].sum(0) - hits).tolist()
    assert counts.confusion.dtype == counts.tp.dtype == np.int64


def test_counts_equal_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("torchmetrics.functional.classification")
    labels, predictions, ids = maps(6, 33, 41, seed=3)
    predictions %= K  # torchmetrics knows classes only
    counts = metrics.count(labels, predictions, ids, K)
    theirs = reference.multiclass_confusion_matrix(
        torch.from_numpy(predictions), torch.from_numpy(labels), num_classes=K, ignore_index=IGNORE
    )
    assert counts.confusion[:, :K].tolist() == theirs.tolist()
    assert counts.confusion[:, K].sum() == 0


def test_counting_leaves_its_inputs_and_adds_up() -> None:
    labels, predictions, ids = maps()
    before = labels.copy(), predictions.copy()
    whole = metrics.count(labels, predictions, ids, K)
    parts = metrics.count(labels[:1], predictions[:1], ids[:1], K) + metrics.count(
        labels[1:], predictions[1:], ids[1:], K
    )
    assert whole == parts
    assert np.array_equal(labels, before[0])
    assert np.array_equal(predictions, before[1])


def test_predictions_on_void_change_nothing() -> None:
    labels, predictions, ids = maps()
    other = np.where(labels == IGNORE, 3, predictions)
    assert metrics.count(labels, predictions, ids, K) == metrics.count(labels, other, ids, K)


def test_permuted_classes_permute_the_matrix() -> None:
    labels, predictions, ids = maps()
    order = np.random.default_rng(1).permutation(K)
    lookup = np.arange(256)
    lookup[:K] = order
    first = metrics.count(labels, predictions, ids, K)
    second = metrics.count(lookup[labels], lookup[predictions], ids, K)
    assert np.array_equal(second.confusion[np.ix_(order, [*order, K])], first.confusion)
    assert metrics.miou(second) == pytest.approx(metrics.miou(first), abs=1e-15)


@pytest.mark.parametrize("wrong", [K, 254, -1, 300, 65535, 65536, 2**32, -65536])
def test_a_label_outside_the_classes_is_named(wrong: int) -> None:
    labels, predictions, ids = maps()
    labels[2, 0, 0] = wrong
    with pytest.raises(RobustsegError, match=rf"expected labels 0 to 4 or 255 .* got {wrong} in '{ids[2]}'; try"):
        metrics.count(labels, predictions, ids, K)


def test_maps_of_other_shape_are_refused() -> None:
    labels, predictions, ids = maps()
    with pytest.raises(ShapeError, match=r"expected labels and predictions \[4, h, w\]"):
        metrics.count(labels, predictions[:, :-1], ids, K)


@pytest.mark.parametrize("guess", [65536, -1, 2**32, 65536 + 255])
def test_a_prediction_outside_the_classes_is_no_class(guess: int) -> None:
    labels = np.zeros((1, 2, 2), np.int64)
    assert metrics.count(labels, np.full_like(labels, guess), ["a"], K).confusion[0].tolist() == [0] * K + [4]


def test_many_classes_count_right() -> None:
    labels = np.arange(300, dtype=np.int64).reshape(1, 20, 15) % 250
    counts = metrics.count(labels, labels, ["a"], 250)
    assert np.diagonal(counts.confusion).sum() == 300
    assert metrics.miou(counts) == 1.0


@pytest.fixture
def absent() -> Counts:
    """Three classes: 0 half right, 1 not labelled but predicted, 2 neither."""
    labels = np.zeros((1, 2, 2), np.int64)
    predictions = np.array([[[0, 0], [1, 1]]])
    return metrics.count(labels, predictions, ["a"], 3)


def test_absent_classes_follow_the_named_policy(absent: Counts) -> None:
    assert metrics.miou(absent) == 0.5
    assert metrics.miou(absent, absent="untouched") == 0.25
    assert metrics.miou_per_image(absent) == 0.5
    assert np.isnan(metrics.class_iou(absent)).tolist() == [False, True, True]
    assert np.isnan(metrics.class_iou(absent, absent="untouched")).tolist() == [False, False, True]
    assert np.isnan(metrics.class_recall(absent)).tolist() == [False, True, True]
    assert metrics.pixel_accuracy(absent) == 0.5
    with pytest.raises(RobustsegError, match="'unlabelled' or 'untouched', got 'zero'"):
        metrics.miou(absent, absent="zero")


def test_nothing_labelled_is_absent_and_not_zero() -> None:
    void = metrics.count(np.full((1, 2, 2), IGNORE), np.zeros((1, 2, 2), np.int64), ["a"], 3)
    values = metrics.miou(void), metrics.miou_per_image(void), metrics.pixel_accuracy(void), metrics.q(void, void)
    assert all(math.isnan(v) for v in values)


def test_q_is_a_ratio_over_the_same_images() -> None:
    labels, predictions, ids = maps()
    clean, bad = metrics.count(labels, labels, ids, K), metrics.count(labels, predictions, ids, K)
    assert metrics.q(bad, clean) == pytest.approx(metrics.miou(bad))
    assert metrics.q(bad, clean, [1]) == pytest.approx(metrics.miou(bad, [1]))
    with pytest.raises(RobustsegError, match="same images"):
        metrics.q(metrics.count(labels[:2], predictions[:2], ids[:2], K), clean)


def test_psnr_in_decibel() -> None:
    assert metrics.psnr([0.1]) == pytest.approx(20)
    assert metrics.psnr([0.1, 0.001, 0, math.nan]) == pytest.approx(40), "the mean over changed images"
    assert metrics.psnr([0, 0]) == math.inf
    assert math.isnan(metrics.psnr([]))


def test_sequences_keep_their_order() -> None:
    assert metrics.sequences(["x_1", "y_1", "x_2", "plain"]) == {"x": [0, 2], "y": [1], "": [3]}


def frames(n: int, *, seed: int, spread: float = 0.1) -> Counts:
    """Counts of n frames of one sequence whose accuracy drifts slowly, two classes of 1000 pixels each."""
    rng = np.random.default_rng(seed)
    share = np.clip(0.7 + spread * np.repeat(rng.standard_normal(-(-n // 5)), 5)[:n], 0, 1)
    tp = np.round(1000 * np.stack([share, share], 1)).astype(np.int64)
    wrong = 1000 - tp
    confusion = np.zeros((2, 3), np.int64)
    confusion[[0, 1], [0, 1]] = tp.sum(0)
    confusion[[0, 1], [1, 0]] = wrong.sum(0)
    return Counts(tuple(f"s_{i:04d}" for i in range(n)), confusion, tp, wrong[:, ::-1], wrong)


def times_drawn(ids: tuple[str, ...], *, draws: int) -> np.ndarray:
    """How often each draw takes each image, `[draws, n]`: each image has one pixel, of a class of its own."""
    one, none = np.eye(len(ids), dtype=np.int64), np.zeros((len(ids), len(ids)), np.int64)
    counts = Counts(ids, np.zeros((len(ids), len(ids) + 1), np.int64), one, none, none)
    return metrics.resample(counts, draws=draws).tp


def bootstrap(figure: Callable[[list[int]], float], ids: tuple[str, ...], *, draws: int) -> np.ndarray:
    """The slow way: a figure of the images of each draw."""
    numbers = np.arange(len(ids))
    return np.array([figure(np.repeat(numbers, times).tolist()) for times in times_drawn(ids, draws=draws)])


def test_resample_is_deterministic_and_equals_the_slow_way() -> None:
    counts = frames(60, seed=0)
    slow = bootstrap(lambda i: metrics.miou(counts, i), counts.ids, draws=200)
    assert np.allclose(metrics.image_miou(metrics.resample(counts, draws=200)), slow, rtol=0, atol=1e-15)
    assert not np.allclose(metrics.image_miou(metrics.resample(counts, draws=200, seed=1)), slow)
    found = metrics.interval(metrics.miou(counts), slow)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("tail", "freedom", "value"),
    [(0.025, 1, 12.7062), (0.025, 3, 3.18245), (0.0005, 3, 12.924), (0.025, 20, 2.08596), (0.001, 200, 3.1315)],
)
def test_student_is_that_of_the_tables(tail: float, freedom: float, value: float) -> None:
    assert metrics.t_quantile(tail, freedom) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("n", [40, 120])
def test_t_intervals_hold_the_mean_as_often_as_they_say(n: int) -> None:
    """Means of independent images: an interval misses on either side in 2.5 of 100 sets, also with few blocks."""
    ids = tuple(f"s_{i:03d}" for i in range(n))
    values = np.random.default_rng(1).standard_normal((400, n))
    drawn = times_drawn(ids, draws=1000) @ values.T / n
    found = [metrics.t_interval(v.mean(), samples, ids) for v, samples in zip(values, drawn.T, strict=True)]
    assert 2 <= sum(f.high < 0 for f in found) <= 20
    assert 2 <= sum(f.low > 0 for f in found) <= 20


@pytest.mark.parametrize(
    ("n", "level", "t"), [(3, 0.95, 4.30265), (3, 0.9, 2.91999), (3, 0.99, 9.92484), (4, 0.95, 3.18245), (12, 0.95, 2.20099)]
)  # fmt: skip
def test_few_independent_images_have_students_interval(n: int, level: float, t: float) -> None:
    """In closed form: mean -+ t s / sqrt(n) with n - 1 degrees of freedom and s with n - 1 in its denominator."""
    values = np.random.default_rng(n).integers(100, 900, n)
    counts = frames(n, seed=0)
    counts = dataclasses.replace(
        counts, ids=tuple(f"s{i}_0" for i in range(n)), tp=values[:, None] * np.ones_like(counts.tp)
    )
    samples = metrics.resample(counts, block=1, draws=40_000).tp[:, 0] / n
    found = metrics.t_interval(values.mean(), samples, counts.ids, block=1, level=level)
    error = values.std(ddof=1) / math.sqrt(n)
    assert found.value == values.mean()
    assert (found.high - found.value) / error == pytest.approx(t, rel=0.02)
    assert (found.value - found.low) / error == pytest.approx(t, rel=0.02)


def test_bootstrap_covers_the_truth() -> None:
    """Over many sets whose frames hang together in fives, a 95 % interval holds the mean nearly as often."""
    held = 0
    for seed in range(100):
        counts = frames(150, seed=seed)
        found = metrics.interval(0.0, metrics.resample(counts, draws=300).tp[:, 0] / 150_000)
        held += found.low <= 0.7 <= found.high
    assert 82 <= held <= 100


def test_every_frame_is_drawn_alike() -> None:
    """The ends of a sequence and a sequence shorter than a block count as much as the rest."""
    ids = [f"short_{i}" for i in range(6)] + [f"long_{i}" for i in range(60)]
    share = times_drawn(tuple(ids), draws=4000).mean(0)
    assert share[:6].mean() == pytest.approx(1, abs=0.1)
    assert share.min() > 0.85
    assert share.max() < 1.15


def test_too_few_images_have_no_interval() -> None:
    counts = frames(29, seed=0)
    drawn = metrics.resample(counts)
    assert len(drawn.ids) == 0
    for found in (metrics.interval(0.5, drawn.tp[:, 0]), metrics.t_interval(0.5, drawn.tp[:, 0], counts.ids)):
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert found.value == 0.5


def test_resample_of_a_part_draws_from_that_part() -> None:
    counts = frames(90, seed=2)
    part = list(range(30, 90))
    drawn = metrics.resample(counts, part, draws=100)
    found = metrics.interval(metrics.miou(counts, part), metrics.image_miou(drawn))
    assert found.low < metrics.miou(counts, part) < found.high
    assert (drawn.tp + drawn.fn == 60_000).all()


def members(number: int, images: int, seed: int) -> list[Counts]:
    """Several predictions of the same labels; each member is good at other classes."""
    labels, _, ids = maps(images, 3, 4, seed=seed)
    rng = np.random.default_rng(seed + 100)
    wrong = [(rng.random(K)[np.minimum(labels, K - 1)] < rng.random(labels.shape)) for _ in range(number)]
    found = [np.where(w, rng.integers(0, K + 1, labels.shape), labels) for w in wrong]
    return [metrics.count(labels, guess, ids, K) for guess in found]


def chosen(runs: list[Counts], choice: tuple[int, ...]) -> Counts:
    tp, fp, fn = (np.stack([getattr(runs[m], name)[i] for i, m in enumerate(choice)]) for name in ("tp", "fp", "fn"))
    return Counts(runs[0].ids, np.zeros((K, K + 1), np.int64), tp, fp, fn)


@pytest.mark.parametrize(("number", "images"), [(1, 4), (2, 6), (3, 5), (4, 4), (3, 1)])
def test_the_worst_mean_iou_against_every_choice(number: int, images: int) -> None:
    best = []
    for seed in range(10):
        runs = members(number, images, seed)
        every = [metrics.miou(chosen(runs, c)) for c in itertools.product(range(number), repeat=images)]
        found = metrics.worst(runs)
        assert found.miou == pytest.approx(metrics.miou(chosen(runs, tuple(found.choice))), abs=1e-12)
        assert found.bound <= min(every) + 1e-12
        assert min(every) - 1e-12 <= found.miou <= min(metrics.miou(r) for r in runs) + 1e-12
        best.append(found.miou <= min(every) + 1e-12)
        rows = range(images)
        fewest = sum(min(int(r.tp[i].sum()) for r in runs) for i in rows) / int((runs[0].tp + runs[0].fn).sum())
        assert metrics.worst_pixel_accuracy(runs) == pytest.approx(fewest, abs=1e-15)
    assert sum(best) >= 7  # greedy is not exact, but mostly it is on so few


def test_with_one_class_the_bound_of_the_worst_mean_iou_is_the_optimum() -> None:
    rng = np.random.default_rng(0)
    labelled = rng.integers(5, 50, (7, 1))
    runs = []
    for _ in range(3):
        tp = rng.integers(0, labelled + 1)
        runs.append(Counts(tuple("abcdefg"), np.zeros((1, 2), np.int64), tp, rng.integers(0, 9, (7, 1)), labelled - tp))
    found = metrics.worst(runs)
    ratios = []
    for choice in itertools.product(range(3), repeat=7):
        tp, fp, fn = (sum(int(getattr(runs[m], n)[i, 0]) for i, m in enumerate(choice)) for n in ("tp", "fp", "fn"))
        ratios.append(tp / (tp + fp + fn))
    assert found.bound == pytest.approx(min(ratios), abs=1e-15)


def test_more_members_lower_the_bound_and_order_of_images_hardly_matters() -> None:
    runs = members(4, 60, 0)
    found = [metrics.worst(runs[:n]) for n in (1, 2, 3, 4)]
    assert all(more.bound < less.bound and more.miou < less.miou for less, more in itertools.pairwise(found))
    assert (found[0].miou, found[0].bound) == pytest.approx((metrics.miou(runs[0]),) * 2)
    assert metrics.worst(runs, seed=1).miou == pytest.approx(found[-1].miou, abs=0.01)


def test_the_worst_of_nothing_labelled_is_absent_and_of_different_images_refused() -> None:
    nothing = metrics.count(np.full((2, 3, 3), IGNORE), np.zeros((2, 3, 3), int), ["a", "b"], K)
    assert math.isnan(metrics.worst([nothing, nothing]).miou)
    assert math.isnan(metrics.worst_pixel_accuracy([nothing]))
    other = members(1, 2, 0)[0]
    for wrong in ([], [other, nothing], [other, members(1, 2, 1)[0]]):
        with pytest.raises(RobustsegError, match="over the same images"):
            metrics.worst(wrong)


def test_the_worst_of_many_members_over_many_images_is_below_each() -> None:
    rng = np.random.default_rng(0)
    labelled = rng.integers(0, 2000, (1500, 150))
    runs = []
    for _ in range(4):
        tp = rng.integers(0, labelled + 1)
        fp = rng.integers(0, 500, labelled.shape)
        ids = tuple(map(str, range(1500)))
        runs.append(Counts(ids, np.zeros((150, 151), np.int64), tp, fp, labelled - tp))
    found = metrics.worst(runs)
    assert found.bound < found.miou < min(metrics.miou(run) for run in runs)
