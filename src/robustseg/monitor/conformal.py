"""Thresholds that promise a false-alarm rate, the law of the alarms they give, and ROC curves. Plain numpy.

Split conformal prediction: of n clean scores and one new clean score, all exchangeable, each rank of the new one is
equally likely. An alarm when it is above the r-th largest of the n therefore has probability at most r / (n + 1),
exactly that where no two scores are equal, whatever the scores are. Over m new images the number of false alarms is
beta-binomial with parameters r and n + 1 - r: even a perfect threshold gives counts that spread.

Frames of one drive are not exchangeable with those of another: there the promise is no promise, and the measured rate
says by how much.

Source: Vovk, Gammerman, Shafer 2005; Vovk, ACML 2012 (the beta law given the calibration set).
"""

import math
from typing import NamedTuple

import numpy as np

from robustseg.core.errors import RobustsegError


def ranks(count: int, rate: float) -> int:
    """How many of the ranks of one new score among `count` others may give an alarm: `floor((count + 1) * rate)`.

    Raises:
        RobustsegError: none, because the scores are too few or the rate is no rate.
    """
    if not 0 < rate < 1:
        raise RobustsegError(f"expected a false-alarm rate between 0 and 1, got {rate}; try 0.01")
    allowed = math.floor((count + 1) * rate + 1e-9)  # 1000 * 0.01 in floats is not always 10
    if allowed < 1:
        raise RobustsegError(
            f"expected at least {math.ceil(1 / rate - 1e-9) - 1} clean scores for a false-alarm rate of {rate:g}, "
            f"got {count}; try more clean images or a larger rate"
        )
    return allowed


def threshold(scores: np.ndarray, rate: float) -> float:
    """The smallest number t for which `score >= t` has probability at most `rate` for a new clean score.

    Just above the r-th largest score, `r = floor((n + 1) * rate)`.

    Args:
        scores: `[n]`, of clean images, larger is more suspicious.
        rate: of false alarms, 0 to 1.

    Raises:
        RobustsegError: fewer than `1 / rate - 1` scores, or NaN among them.
    """
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        raise RobustsegError("expected numbers as scores, got NaN; try without the images on which a member failed")
    allowed = ranks(len(scores), rate)
    return float(np.nextafter(np.sort(scores)[-allowed], math.inf))


def law(images: int, *, calibration: int, ranks: int) -> np.ndarray:
    """The probability of 0, 1, … false alarms on new clean images, `[images + 1]`, over both draws: beta-binomial.

    Args:
        images: how many new ones.
        calibration: how many scores the threshold was fitted on.
        ranks: those that give an alarm, `ranks(calibration, rate)`; of two one-sided thresholds on one score, the sum.

    Source: the probability of an alarm given the calibration scores is Beta(ranks, calibration + 1 - ranks).
    Differs: where scores may be equal there are fewer alarms than this.
    """
    a, b = ranks, calibration + 1 - ranks

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return np.array(
        [
            math.exp(
                math.lgamma(images + 1)
                - math.lgamma(k + 1)
                - math.lgamma(images - k + 1)
                + log_beta(k + a, images - k + b)
                - log_beta(a, b)
            )
            for k in range(images + 1)
        ]
    )


def rate_interval(alarms: int, images: int, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval for the rate behind so many alarms on so many images, 95 % by default; it takes them as independent.

    Frames of one drive are alike, so for them the true interval is wider.

    Raises:
        RobustsegError: no images, or more alarms than images.
    """
    if not 0 <= alarms <= images or not images:
        raise RobustsegError(f"expected alarms on at least one image and at most as many, got {alarms} on {images}")
    share, spread = alarms / images, z * z / images
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / images + spread / (4 * images))
    return max(0.0, middle - half), min(1.0, middle + half)


class Roc(NamedTuple):
    """One point a threshold, from no alarm at all to an alarm for all: `score >= threshold` is an alarm."""

    thresholds: np.ndarray
    false_alarms: np.ndarray
    hits: np.ndarray


def roc(clean: np.ndarray, attacked: np.ndarray) -> Roc:
    """The shares of clean and of attacked images that give an alarm, at every threshold that matters.

    Args:
        clean, attacked: scores `[n]`, `[m]`, larger is more suspicious; NaN, where a member failed, is left out.

    Raises:
        RobustsegError: no scores on one side.
    """
    clean, attacked = _numbers(clean), _numbers(attacked)
    thresholds = np.concatenate([[math.inf], np.unique(np.concatenate([clean, attacked]))[::-1]])
    above = [(np.sort(s)[:, None] >= thresholds[None]).mean(0) for s in (clean, attacked)]
    return Roc(thresholds, *above)


def auroc(clean: np.ndarray, attacked: np.ndarray) -> float:
    """The probability that an attacked image has the larger score than a clean one, ties counting half.

    Args and raises as `roc`.
    """
    clean, attacked = np.sort(_numbers(clean)), _numbers(attacked)
    below = np.searchsorted(clean, attacked, "left") + np.searchsorted(clean, attacked, "right")
    return float(below.mean() / (2 * len(clean)))


def _numbers(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise RobustsegError("expected scores of clean and of attacked images, got none on one side")
    return scores
