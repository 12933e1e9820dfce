"""A verdict errs as rarely as it says, and tells what it rests on."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from robustseg.core.errors import RobustsegError
from robustseg.results import metrics
from robustseg.results.record import Counts
from robustseg.studies.verdicts import (
    HELD,
    NOT_HELD,
    NOT_TESTABLE,
    UNDECIDED,
    exact,
    over_frames,
    over_images,
    over_seeds,
    verdict,
)

T95_2 = 2.91999  # Student's t with two degrees of freedom exceeds this with probability 5 %


def counts(right: Sequence[int], *, wrong: int = 100, names: str = "drive") -> Counts:
    """Frames of one class, each with so many right pixels and so many that are missed."""
    tp = np.array(right, np.int64)[:, None]
    ids = tuple(f"{names}_{i:03d}" for i in range(len(tp)))
    return Counts(ids, np.array([[tp.sum(), wrong * len(tp)]]), tp, np.zeros_like(tp), np.full_like(tp, wrong))


@pytest.mark.parametrize(
    ("values", "goal", "outcome"),
    [
        ([1.0, 1.1, 1.2], {"above": 0.0}, HELD),
        ([-1.0, -1.1, -1.2], {"above": 0.0}, NOT_HELD),
        ([-1.0, -1.1, -1.2], {"below": 0.0}, HELD),
        ([1.0, -0.2, 1.0], {"above": 0.0}, UNDECIDED),
        ([1.0, -0.2, 1.0], {"above": -1.0}, HELD),  # 1.6 from the threshold, standard error 0.4
        ([1.0, 1.1, 1.2], {"above": 1.0}, UNDECIDED),
        ([0.0, 0.0, 0.0], {"below": 1.0}, HELD),  # without spread the mean is the bound
        ([1.0, 1.0], {"above": 1.0}, UNDECIDED),
        ([9.0], {"above": 0.0}, UNDECIDED),  # one seed has no spread
        ([], {"above": 0.0}, NOT_TESTABLE),
        ([1.0, math.nan, 1.0], {"above": 0.0}, NOT_TESTABLE),
    ],
)
def test_the_bound_over_seeds_decides(values, goal, outcome):
    assert verdict("X", "it holds", [over_seeds("gain", values, **goal)]).verdict == outcome


def test_the_bound_over_seeds_is_that_of_students_t():
    case = over_seeds("gain", [1.0, 2.0, 4.0], above=0.0)
    reach = T95_2 * np.std([1, 2, 4], ddof=1) / math.sqrt(3)
    assert case.reach() == pytest.approx(reach, rel=1e-4)
    assert case.bound == pytest.approx(7 / 3 - reach, rel=1e-4)
    assert over_seeds("gain", [1.0, 2.0, 4.0], below=0.0).bound == pytest.approx(7 / 3 + reach, rel=1e-4)


def test_the_more_cases_the_clearer_one_must_fail():
    bad, good = over_seeds("bad", [-1.0, -1.3, -1.6], above=0.0), over_seeds("good", [1.0, 1.1, 1.2], above=0.0)
    assert verdict("X", "it holds", [bad]).verdict == NOT_HELD  # t = -7.5
    assert verdict("X", "it holds", [bad, *[good] * 7]).verdict == UNDECIDED  # 0.05 / 8 asks for 8.86
    assert verdict("X", "it holds", [bad, exact("counted", 3, 3), over_seeds("none", [], above=0)]).verdict == NOT_HELD


def test_a_case_without_values_leaves_a_claim_untested_unless_another_fails():
    none, good = over_seeds("none", [], above=0.0), over_seeds("good", [1.0, 1.1, 1.2], above=0.0)
    assert verdict("X", "it holds", [none, good]).verdict == NOT_TESTABLE
    assert verdict("X", "it holds", [none, exact("counted", 2, 3)]).verdict == NOT_HELD
    assert verdict("X", "it holds", []).verdict == NOT_TESTABLE
    assert verdict("X", "it holds", [exact("counted", 0, 0)]).verdict == NOT_TESTABLE


def test_exact_cases_print_their_count():
    found = verdict("A1", "it never rises", [exact("steps", 282, 286)])
    assert (found.verdict, found.line) == (NOT_HELD, "A1 not held: 282 of 286 cases hold; steps 282 of 286 not held")
    assert verdict("A1", "it never rises", [exact("steps", 286, 286)]).verdict == HELD
    assert "over frames" not in found.numbers
    assert "seeds" not in found.numbers


def test_a_verdict_tells_cases_bounds_thresholds_and_what_the_seeds_could_decide():
    cases = [
        over_seeds("clean", [1.0, 1.1, 1.2], above=0.0),
        over_seeds("Q", [4.0, 1.0, 1.0], below=5.0),
        over_seeds("shared", [4.0, 1.0, 1.0], above=-0.5, ours=True),
        over_seeds("late", [], above=0.0),
    ]
    found = verdict("K2", "it gains", cases, "and more")
    assert found.numbers == (
        "2 of 4 cases hold; clean 1.1 (lower bound 0.931) held; Q 2 (upper bound 4.92, threshold 5) held; "
        "shared 2 (lower bound -0.92, our threshold -0.5) undecided; late not run; "
        "3 seeds can decide effects from 0.17 (clean) to 2.9 (shared) on; and more"
    )
    plain = json.loads(json.dumps([dict(case) for case in found.cases], allow_nan=False))
    assert [case["verdict"] for case in plain] == [HELD, HELD, UNDECIDED, NOT_TESTABLE]
    assert plain[3]["value"] is None
    assert plain[0]["bound"] == pytest.approx(0.931, abs=1e-3)


def test_of_many_cases_those_that_do_not_hold_are_listed_the_clearest_first():
    good = [over_seeds(f"good {i}", [3.0 + i, 3.1 + i, 3.2 + i], above=0.0) for i in range(9)]
    bad = [over_seeds(f"bad {i}", [-1.0 - i, 1.0, 1.0], above=0.0) for i in range(10)]
    assert "nearest: good 0 3.1" in verdict("X", "it holds", good).numbers
    text = verdict("X", "it holds", [*good, *bad]).numbers
    assert text.index("bad 9") < text.index("bad 8") < text.index("bad 2")
    assert "bad 1 " not in text
    assert text.startswith("9 of 19 cases hold")
    assert "2 more do not hold" in text
    noisy = [over_seeds(f"noisy {i}", [-90.0, 10.0, 20.0], above=0.0) for i in range(9)]
    decisive = over_seeds("decisive", [-1.0, -1.01, -0.99], above=0.0)
    assert "; decisive -1 (lower bound" in verdict("X", "it holds", [*noisy, decisive]).numbers


def test_frames_are_drawn_in_blocks_and_paired():
    rng = np.random.default_rng(0)
    right = rng.integers(300, 700, 60)
    clean, attacked = counts(right), counts(right // 2)
    case = over_frames("drop", [clean, attacked], lambda before, after: before - after, above=0.0)
    drawn = [metrics.image_miou(metrics.resample(run)) for run in (clean, attacked)]
    wanted = metrics.t_interval(case.value, 100 * (drawn[0] - drawn[1]), clean.ids, level=0.9)
    assert case.value == pytest.approx(100 * (metrics.miou(clean) - metrics.miou(attacked)))
    assert case.bound == pytest.approx(wanted.low)
    assert case.count == 60
    found = verdict("S1", "it drops", [case])
    assert found.verdict == HELD
    assert "about these networks" in found.numbers
    part = over_frames("drop", [clean, attacked], lambda before, after: before - after, above=0.0, images=range(30))
    assert part.count == 30
    assert part.value != case.value


def test_values_of_frames_are_averaged_and_drawn_as_the_counts_are():
    values = np.random.default_rng(0).uniform(0.2, 0.9, 60)
    ids = [f"drive_{i:03d}" for i in range(60)]
    case = over_images("share", dict(zip(ids, values, strict=True)), above=0.0, block=6)
    samples = metrics.resample_mean(values, ids, block=6)
    assert case.value == pytest.approx(values.mean())
    assert case.bound == pytest.approx(metrics.t_interval(values.mean(), samples, ids, block=6, level=0.9).low)


def test_too_few_frames_decide_nothing_and_runs_must_share_theirs():
    few = counts([900] * 10)
    assert verdict("X", "it holds", [over_frames("kept", [few], lambda miou: miou, above=50.0)]).verdict == UNDECIDED
    missing = over_frames("kept", [few, None], lambda one, other: one - other, above=0.0)
    assert verdict("X", "it holds", [missing]).verdict == NOT_TESTABLE
    assert verdict("X", "it holds", [over_images("share", {}, above=0.0)]).verdict == NOT_TESTABLE
    with pytest.raises(RobustsegError, match="same frames for 'kept'"):
        over_frames("kept", [few, counts([1] * 10, names="other")], lambda one, other: one - other, above=0.0)


@pytest.mark.parametrize("goal", [{}, {"above": 1.0, "below": 2.0}])
def test_a_case_has_one_threshold(goal):
    with pytest.raises(RobustsegError, match="expected one threshold"):
        over_seeds("gain", [1.0], **goal)


def trials_of(means: Sequence[float], *, shared: float = 0.0, trials: int = 40_000) -> np.ndarray:
    """Paired differences of three seeds with a standard deviation of 1, `[trials, cases, 3]`, one case for each mean."""
    rng = np.random.default_rng(7)
    common, own = rng.normal(size=(trials, 1, 3)), rng.normal(size=(trials, len(means), 3))
    return np.asarray(means)[:, None] + math.sqrt(shared) * common + math.sqrt(1 - shared) * own


def rates(denied: np.ndarray, held: np.ndarray) -> dict[str, float]:
    """How often a rule gives each verdict, from what it says of each case, `[trials, cases]`."""
    return {NOT_HELD: float(denied.any(1).mean()), HELD: float(held.all(1).mean())}


def old_rule(drawn: np.ndarray) -> dict[str, float]:
    """Two standard deviations of three seeds, and any case may veto."""
    clear = np.abs(drawn.mean(2)) >= 2 * drawn.std(2, ddof=1)
    return rates(clear & (drawn.mean(2) < 0), clear & (drawn.mean(2) > 0))


def new_rule(drawn: np.ndarray) -> dict[str, float]:
    """The rule of `verdict` on many trials at once."""
    mean, error = drawn.mean(2), drawn.std(2, ddof=1) / math.sqrt(3)
    clear, alone = metrics.t_quantile(0.05, 2), metrics.t_quantile(0.05 / drawn.shape[1], 2)
    return rates(mean + alone * error < 0, mean - clear * error > 0)


@pytest.mark.parametrize("means", [[0.0] * 3, [-10.0, 8.0, 8.0], [3.0] * 3])
def test_the_simulated_rule_is_that_of_verdict(means):
    drawn = trials_of(means, trials=60)
    found = [
        verdict("X", "all gain", [over_seeds("gain", values, above=0.0) for values in trial]).verdict
        for trial in drawn.tolist()
    ]
    assert {one: found.count(one) / 60 for one in (NOT_HELD, HELD)} == pytest.approx(new_rule(drawn))


def test_without_any_effect_the_old_rule_objects_in_a_quarter_of_all_trials_and_the_new_one_in_a_twentieth():
    drawn = trials_of([0.0] * 8)
    old, new = old_rule(drawn), new_rule(drawn)
    assert old[NOT_HELD] == pytest.approx(0.26, abs=0.01)
    assert new[NOT_HELD] == pytest.approx(0.05, abs=0.005)
    assert new[HELD] < 0.001


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.95])
def test_cases_that_share_their_noise_keep_both_error_rates(shared):
    assert new_rule(trials_of([0.0] * 8, shared=shared))[NOT_HELD] <= 0.055
    # the truth that is hardest for "held": one case without an effect, all others clear
    assert new_rule(trials_of([0.0] + [50.0] * 7, shared=shared))[HELD] == pytest.approx(0.05, abs=0.005)


def test_real_effects_are_found():
    assert new_rule(trials_of([3.0]))[HELD] > 0.8  # three standard deviations of a seed
    assert new_rule(trials_of([8.0] * 8))[HELD] > 0.95  # all eight cases gain
    assert new_rule(trials_of([-10.0] + [8.0] * 7))[NOT_HELD] > 0.8  # one loses, clearly enough for one of eight cases


def test_blocks_keep_the_level_where_frames_hang_together():
    # the value of each frame is that of one before it, in part; no effect on average
    rng, held, ids = np.random.default_rng(3), 0, [f"drive_{i:03d}" for i in range(120)]
    for _ in range(1000):
        steps = rng.normal(size=140)
        values = np.convolve(steps, 0.7 ** np.arange(20), mode="valid")[:120]
        case = over_images("share", dict(zip(ids, values, strict=True)), above=0.0)
        held += verdict("X", "it is above", [case]).verdict == HELD
    assert held / 1000 <= 0.08


def test_verdicts_need_no_torch():
    code = "import robustseg.studies.verdicts, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
