"""Thresholds keep their promise over resplits, the law is the law, and curves are what counting by hand gives."""

import math
from fractions import Fraction

import numpy as np
import pytest

from robustseg.core.errors import RobustsegError
from robustseg.monitor.conformal import auroc, law, ranks, rate_interval, roc, threshold


def test_the_threshold_lies_just_above_the_score_of_its_rank():
    scores = np.arange(1.0, 100.0)  # 99 of them: 5 ranks of 100
    limit = threshold(scores, 0.05)
    assert (scores >= limit).sum() == 4
    assert limit == np.nextafter(95.0, math.inf)


@pytest.mark.parametrize(
    ("count", "rate", "allowed"), [(99, 0.01, 1), (199, 0.01, 2), (999, 0.01, 10), (468, 0.05, 23)]
)
def test_ranks(count, rate, allowed):
    assert ranks(count, rate) == allowed


@pytest.mark.parametrize(("count", "rate"), [(98, 0.01), (0, 0.5), (10, 0.0), (10, 1.0)])
def test_too_few_scores_or_no_rate(count, rate):
    with pytest.raises(RobustsegError, match="expected"):
        threshold(np.zeros(count), rate)


def test_nan_is_no_score():
    with pytest.raises(RobustsegError, match="NaN"):
        threshold(np.array([math.nan, *range(100)]), 0.05)


@pytest.mark.parametrize(("images", "calibration", "allowed"), [(7, 19, 1), (5, 9, 4), (40, 99, 3)])
def test_the_law_counts_orders(images, calibration, allowed):
    # Of all orders of n + m scores alike, those in which k new ones lie above the r-th largest old one.
    old = calibration
    exact = [
        Fraction(math.comb(k + allowed - 1, k) * math.comb(images - k + old - allowed, images - k))
        / math.comb(images + old, images)
        for k in range(images + 1)
    ]
    assert sum(exact) == 1
    np.testing.assert_allclose(law(images, calibration=old, ranks=allowed), [float(p) for p in exact], rtol=1e-9)


def test_false_alarms_over_resplits_follow_the_law():
    rng = np.random.default_rng(5)
    calibration, images, rate, splits = 99, 60, 0.05, 4000
    counts = np.zeros(images + 1)
    for _ in range(splits):
        scores = rng.standard_cauchy(calibration + images) ** 3  # whatever the scores are
        limit = threshold(scores[:calibration], rate)
        counts[(scores[calibration:] >= limit).sum()] += 1
    expected = law(images, calibration=calibration, ranks=ranks(calibration, rate)) * splits
    many = expected >= 20
    chi_square = ((counts - expected)[many] ** 2 / expected[many]).sum()
    degrees = many.sum()
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)
    assert abs(counts @ np.arange(images + 1) / splits / images - rate) < 0.002
    binomial = (
        np.array([math.comb(images, k) * rate**k * (1 - rate) ** (images - k) for k in range(images + 1)]) * splits
    )
    assert ((counts - binomial)[many] ** 2 / binomial[many]).sum() > 10 * degrees, "a plain binomial is not the law"


def test_two_sides_share_the_rate_and_follow_the_law_of_the_sum():
    rng = np.random.default_rng(6)
    calibration, images, rate, splits = 99, 50, 0.1, 3000
    total = []
    for _ in range(splits):
        scores = rng.normal(size=calibration + images)
        high, low = threshold(scores[:calibration], rate / 2), -threshold(-scores[:calibration], rate / 2)
        fresh = scores[calibration:]
        total.append(((fresh >= high) | (fresh <= low)).sum())
    expected = law(images, calibration=calibration, ranks=2 * ranks(calibration, rate / 2))
    mean = expected @ np.arange(images + 1)
    spread = math.sqrt(expected @ (np.arange(images + 1) - mean) ** 2)
    assert abs(np.mean(total) - mean) < 4 * spread / math.sqrt(splits)
    assert abs(np.std(total) / spread - 1) < 0.1


def test_equal_scores_give_fewer_alarms_never_more():
    rng = np.random.default_rng(7)
    shares = []
    for _ in range(2000):
        scores = rng.integers(0, 3, 139)
        shares.append((scores[99:] >= threshold(scores[:99], 0.05)).mean())
    assert np.mean(shares) < 0.05


def test_roc_and_auroc_are_what_counting_gives():
    rng = np.random.default_rng(8)
    clean, attacked = rng.integers(0, 12, 40) / 4, rng.integers(3, 15, 30) / 4
    curve = roc(clean, attacked)
    for limit, false, hit in zip(*curve, strict=True):
        assert false == sum(c >= limit for c in clean) / 40
        assert hit == sum(a >= limit for a in attacked) / 30
    assert (curve.false_alarms[0], curve.hits[0], curve.false_alarms[-1], curve.hits[-1]) == (0, 0, 1, 1)
    wins = sum((a > c) + (a == c) / 2 for c in clean for a in attacked) / 1200
    assert auroc(clean, attacked) == pytest.approx(wins, abs=1e-12)
    assert np.trapezoid(curve.hits, curve.false_alarms) == pytest.approx(wins, abs=1e-12)


def test_scores_of_failed_members_are_left_out():
    assert auroc(np.array([0.0, math.nan]), np.array([1.0])) == 1.0
    with pytest.raises(RobustsegError, match="none on one side"):
        roc(np.array([math.nan]), np.array([1.0]))


@pytest.mark.parametrize(
    ("alarms", "images", "low", "high"),
    [(0, 20, 0.0, 0.1611), (5, 20, 0.1119, 0.4687), (20, 20, 0.8389, 1.0)],  # Wilson's, by hand
)
def test_the_interval_of_a_measured_rate_is_wilsons(alarms, images, low, high):
    assert rate_interval(alarms, images) == pytest.approx((low, high), abs=5e-4)
    with pytest.raises(RobustsegError, match="at most as many"):
        rate_interval(images + 1, images)
