"""CUSUM over the scores of a stream: an alarm when they leave what was quiet, an all-clear when they are back. No torch.

Two sums run side by side, one for each suspect:

    up   <- clip(up   + score - upper, 0, HOLD * decision)      speaks against the teacher
    down <- clip(down + lower - score, 0, HOLD * decision)      speaks against the student

Scores between the reference values `lower` and `upper` let both sums fall. A sum above `decision` is an alarm, and the
alarm ends when its sum is 0 again. So one frame far out is enough, several frames a little out add up, and a moment of
calm within an attack does not end the alarm. The cap bounds how long an alarm outlives its cause.

Source: Page, Biometrika 1954. Differs: the cap and the all-clear are ours.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robustseg.core.errors import RobustsegError

HOLD = 6.0
"""The most a sum holds, in decision values."""
REFERENCE, DECISION, LEAST_SPREAD = 4.0, 2.0, 0.02
"""Of limits from quiet frames: reference and decision value in spreads, and the smallest spread (of a score in [-1, 1])."""


class Limits(NamedTuple):
    """The reference values of the two sums and the decision value of both, in units of the score."""

    lower: float
    upper: float
    decision: float


class Sums(NamedTuple):
    """What CUSUM remembers: the two sums, and who is under alarm (`teacher`, `student`, or `` for none)."""

    up: float = 0.0
    down: float = 0.0
    alarm: str = ""


def quiet_limits(scores: Sequence[float]) -> Limits:
    """Limits from the scores of frames that are known to be quiet; NaN (a failed member) is left out.

    `median - 4 s` and `median + 4 s`, decision value `2 s`, s the standard deviation but at least 0.02: frames of a drive
    hang together, so a short prefix tells less than it seems, and a still scene would promise too much.

    Raises:
        RobustsegError: fewer than two scores.
    """
    known = np.array([s for s in scores if math.isfinite(s)])
    if len(known) < 2:
        raise RobustsegError(
            f"expected at least 2 quiet frames with a score, got {len(known)}; try a longer --quiet, or members that work"
        )
    middle, spread = float(np.median(known)), max(float(known.std(ddof=1)), LEAST_SPREAD)
    return Limits(middle - REFERENCE * spread, middle + REFERENCE * spread, DECISION * spread)


def threshold_limits(low: float, high: float) -> Limits:
    """Limits from fitted thresholds: what is beyond them adds up, and the decision value is half the way between them.

    Raises:
        RobustsegError: not two finite numbers in order.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise RobustsegError(
            f"expected two thresholds low < high on the triplet, got {low:g} and {high:g}; try --quiet 50"
        )
    return Limits(low, high, (high - low) / 2)


def step(sums: Sums, score: float, limits: Limits) -> Sums:
    """The sums after one more score; NaN (a failed member) tells nothing and changes nothing."""
    if not math.isfinite(score):
        return sums
    most = HOLD * limits.decision
    up = min(max(sums.up + score - limits.upper, 0.0), most)
    down = min(max(sums.down + limits.lower - score, 0.0), most)
    held = {"teacher": up, "student": down}
    if held.get(sums.alarm, 0.0) > 0:
        return Sums(up, down, sums.alarm)
    loudest = max(held, key=held.__getitem__)
    return Sums(up, down, loudest if held[loudest] > limits.decision else "")
