"""CUSUM: when it alarms, when it clears, and what its limits are made of."""

import math

import numpy as np
import pytest

from robustseg.core.errors import RobustsegError
from robustseg.monitor.cusum import Limits, Sums, quiet_limits, step, threshold_limits

LIMITS = Limits(-0.2, 0.4, 0.1)


def run(scores: list[float], limits: Limits = LIMITS) -> list[str]:
    sums, alarms = Sums(), []
    for score in scores:
        sums = step(sums, score, limits)
        alarms.append(sums.alarm)
    return alarms


def test_one_frame_far_out_is_enough_and_the_alarm_ends_soon_after() -> None:
    alarms = run([0.1] * 5 + [0.9] * 20 + [0.1] * 10)
    assert alarms[:5] == [""] * 5
    assert alarms[5:25] == ["teacher"] * 20
    # 0.6 at the cap, 0.3 less each quiet frame
    assert alarms[25:] == ["teacher"] + [""] * 9


def test_frames_a_little_out_add_up() -> None:
    assert run([0.43] * 3) == [""] * 3
    assert run([0.44] * 3)[-1] == "teacher"
    assert run([0.44, 0.1] * 10) == [""] * 20


def test_each_side_has_its_suspect_and_an_attack_may_change_over() -> None:
    assert run([-0.5]) == ["student"]
    assert run([0.9, -0.9, -0.9])[-1] == "student"


def test_a_moment_of_calm_does_not_end_an_alarm() -> None:
    assert run([0.9, 0.9, 0.1, 0.9]) == ["teacher"] * 4


def test_a_failed_frame_changes_nothing() -> None:
    sums = Sums(0.3, 0.0, "teacher")
    assert step(sums, math.nan, LIMITS) == sums


def test_limits_of_quiet_frames() -> None:
    scores = np.random.default_rng(0).normal(0.3, 0.05, 500).tolist()
    limits = quiet_limits([*scores, math.nan])
    assert limits.upper == pytest.approx(0.5, abs=0.03)
    assert limits.lower == pytest.approx(0.1, abs=0.03)
    assert limits.decision == pytest.approx(0.1, abs=0.01)
    # a still scene promises no more than the least spread
    assert quiet_limits([0.3] * 10) == pytest.approx((0.22, 0.38, 0.04))
    assert not any(run(scores, limits))


def test_limits_of_thresholds() -> None:
    assert threshold_limits(-0.1, 0.3) == pytest.approx((-0.1, 0.3, 0.2))


def test_what_gives_no_limits_is_said() -> None:
    with pytest.raises(RobustsegError, match="at least 2 quiet frames"):
        quiet_limits([0.1, math.nan])
    with pytest.raises(RobustsegError, match="two thresholds"):
        threshold_limits(-math.inf, 0.1)
