"""The verdict on a claim: it has cases, each with a one-sided 95 % confidence bound. Torch-free.

A case says that a figure lies above (or below) a threshold. Where networks were trained with several seeds the figure is
the mean over seeds (`over_seeds`; Student's t), and comparisons are paired seed by seed. Where a single network carries the
case the spread is that over frames (`over_frames`, `over_images`; block bootstrap), and the verdict is about this network
and not about its training. A count has no sampling error and is simply true or false (`exact`).

- *Held*: the bound of every case clears its threshold. All must, so no correction is due (intersection-union test: Berger 1982).
- *Not held*: some case lies on the wrong side of its threshold at level 5 % / number of cases (Bonferroni).
- *Undecided* otherwise, and *not testable here* where a case has no values and none is on the wrong side.

Superiority and non-inferiority ("at least as good": above minus a margin) are two claims with a verdict each.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from robustseg.core.errors import RobustsegError
from robustseg.results import metrics
from robustseg.results.record import Counts

HELD, NOT_HELD, UNDECIDED, NOT_TESTABLE = "held", "not held", "undecided", "not testable here"

LEVEL = 0.05
"""Of each one-sided test."""
LISTED = 8
"""A verdict with more cases lists only those that do not hold, at most so many."""
NETWORKS_ONLY = "over frames: about these networks, not about their training"


@dataclass(frozen=True)
class Case:
    """One case of a claim; made by `over_seeds`, `over_frames`, `over_images` or `exact`.

    Args:
        label: what it is about.
        value: the figure; of an exact case, how many hold. NaN without values.
        threshold: what the figure must clear; of an exact case, how many were tried.
        below: the figure must lie below the threshold, not above.
        ours: the paper states no threshold, so we chose this one.
        over: "seeds" or "frames"; empty for an exact case. count: how many of them.
        error: standard error of the figure. freedom: degrees of freedom of its t distribution, 0 where the spread is unknown.
    """

    label: str
    value: float
    threshold: float
    below: bool = False
    ours: bool = False
    over: str = ""
    count: int = 0
    error: float = math.nan
    freedom: float = 0.0

    def reach(self, level: float = LEVEL) -> float:
        """From the figure to its one-sided bound: the smallest effect that these samples can decide; NaN where unknown."""
        return metrics.t_quantile(level, self.freedom) * self.error if self.freedom else math.nan

    @property
    def margin(self) -> float:
        """By how much the figure clears its threshold; negative where it does not."""
        return (self.threshold - self.value) if self.below else (self.value - self.threshold)

    @property
    def bound(self) -> float:
        """The one-sided 95 % bound that must clear the threshold: a lower one, or an upper one with `below`."""
        return self.value + self.reach() if self.below else self.value - self.reach()

    @property
    def tried(self) -> int:
        """How many cases this stands for: one, or the count of an exact one."""
        return 1 if self.over else int(self.threshold)

    def verdict(self, cases: int = 1) -> str:
        """The verdict on this case as one of so many cases of a claim."""
        if math.isnan(self.value) or not self.tried:
            return NOT_TESTABLE
        if not self.over:
            return HELD if self.value == self.threshold else NOT_HELD
        if self.margin > self.reach():
            return HELD
        return NOT_HELD if -self.margin > self.reach(LEVEL / cases) else UNDECIDED

    def told(self, cases: int = 1) -> str:
        """`clean mIoU 1.7 (lower bound 0.4) held`."""
        if not self.over:
            return f"{self.label} {f'{self.value:.0f} of {self.tried} ' if self.tried != 1 else ''}{self.verdict()}"
        if math.isnan(self.value):
            return f"{self.label} not run"
        bound = "" if math.isnan(self.bound) else f"{'upper' if self.below else 'lower'} bound {self.bound:.3g}"
        goal = f"{'our ' if self.ours else ''}threshold {self.threshold:g}" if self.threshold or self.ours else ""
        inside = ", ".join(filter(None, (bound, goal)))
        return f"{self.label} {self.value:.3g}{inside and f' ({inside})'} {self.verdict(cases)}"


class Verdict(NamedTuple):
    """What became of a claim.

    Args:
        claim: its name. statement: its sentence. verdict: held, not held, undecided or not testable here.
        numbers: what the verdict rests on, for people. cases: the same as plain data.
    """

    claim: str
    statement: str
    verdict: str
    numbers: str
    cases: tuple[dict[str, Any], ...] = ()

    @property
    def line(self) -> str:
        """`B1 held: …`."""
        return f"{self.claim} {self.verdict}: {self.numbers}"


def over_seeds(
    label: str,
    values: Sequence[float],
    *,
    above: float | None = None,
    below: float | None = None,
    ours: bool = False,
) -> Case:
    """The mean over seeds lies above, or below, a threshold.

    Args:
        label: what the case is about.
        values: one a seed; of two trainings that are compared, their difference seed by seed. None: not run.
        above, below: the threshold; give one of them. ours: the paper states none, we chose it.

    Raises:
        RobustsegError: not one threshold is given.
    """
    threshold, under = _goal(above, below)
    known = np.asarray(values, np.float64)
    mean, count = (float(known.mean()) if len(known) else math.nan), len(known)
    error = float(known.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return Case(label, mean, threshold, under, ours, "seeds", count, error, max(0, count - 1))


def over_frames(
    label: str,
    runs: Sequence[Counts | None],
    figure: Callable[..., Any],
    *,
    above: float | None = None,
    below: float | None = None,
    ours: bool = False,
    images: metrics.Indices | None = None,
    block: int = 15,
) -> Case:
    """A figure made of the pooled mIoU of some runs over the same frames lies above, or below, a threshold.

    Args:
        label: what the case is about.
        runs: counts over the same frames; None: not run.
        figure: of the mIoU in % of each run, in order, such as `lambda attacked, clean: 100 * attacked / clean`.
        above, below: the threshold; give one of them. ours: the paper states none, we chose it.
        images: positions of the frames to use, all by default. block: frames a block of the bootstrap.

    Raises:
        RobustsegError: not one threshold is given, or the runs are not over the same frames.
    """
    threshold, under = _goal(above, below)
    known = [run for run in runs if run is not None]
    if len(known) < len(runs) or not known:
        return Case(label, math.nan, threshold, under, ours, "frames")
    if any(run.ids != known[0].ids for run in known):
        raise RobustsegError(
            f"expected runs over the same frames for '{label}', got others; try the same data and size"
        )
    value = float(figure(*(100 * metrics.miou(run, images) for run in known)))
    drawn = [metrics.resample(run, images, block=block) for run in known]
    samples = np.asarray(figure(*(100 * metrics.image_miou(draw) for draw in drawn)), np.float64)
    ids = known[0].ids if images is None else [known[0].ids[i] for i in images]
    error = metrics.standard_error(samples, ids, block=block)
    return Case(label, value, threshold, under, ours, "frames", len(ids), *error)


def over_images(
    label: str,
    values: Mapping[str, float],
    *,
    above: float | None = None,
    below: float | None = None,
    ours: bool = False,
    block: int = 15,
) -> Case:
    """The mean over frames of a value of each frame lies above, or below, a threshold.

    Args:
        label: what the case is about.
        values: by image id, in the order of the frames; of two networks that are compared, their difference frame by frame.
        above, below: the threshold; give one of them. ours: the paper states none, we chose it.
        block: frames a block of the bootstrap.

    Raises:
        RobustsegError: not one threshold is given.
    """
    threshold, under = _goal(above, below)
    ids, known = tuple(values), np.array(list(values.values()), np.float64)
    mean = float(known.mean()) if len(known) else math.nan
    error = metrics.standard_error(metrics.resample_mean(known, ids, block=block), ids, block=block)
    return Case(label, mean, threshold, under, ours, "frames", len(ids), *error)


def exact(label: str, held: int, of: int = 1) -> Case:
    """A count: so many hold of so many that were tried; the case holds where all do."""
    return Case(label, held, of)


def verdict(claim: str, statement: str, cases: Sequence[Case], said: str = "") -> Verdict:
    """The verdict on a claim with these cases.

    Args:
        claim: name of the claim. statement: its sentence. cases: all that it says.
        said: what must be told besides the cases.

    Returns:
        The verdict; its numbers say how many cases hold of how many, and for seeds the smallest effect that could be decided.
    """
    sampled = [case for case in cases if case.over and not math.isnan(case.value)]
    divided = max(1, len(sampled))
    found = [case.verdict(divided) for case in cases]
    order = (NOT_HELD, NOT_TESTABLE, UNDECIDED, HELD)
    outcome = next((one for one in order if one in found), NOT_TESTABLE)
    held = sum(one == HELD if case.over else int(case.value) for case, one in zip(cases, found, strict=True))
    count = f"{held} of {sum(case.tried for case in cases)} cases hold"
    networks = NETWORKS_ONLY if any(case.over == "frames" for case in sampled) else ""
    parts = [count, *_listed(cases, divided), _smallest(sampled), networks, said]
    data = tuple(_plain(case, one) for case, one in zip(cases, found, strict=True))
    return Verdict(claim, statement, outcome, "; ".join(filter(None, parts)), data)


def _listed(cases: Sequence[Case], divided: int) -> list[str]:
    """All cases; of many, those that do not hold, the clearest first, or else the one that holds most narrowly."""
    if len(cases) <= LISTED:
        return [case.told(divided) for case in cases]
    missed = [case for case in cases if case.verdict(divided) != HELD]
    missed.sort(key=lambda case: (case.verdict(divided) != NOT_HELD, case.margin))
    if not missed:
        return [f"nearest: {min(cases, key=lambda case: case.margin).told(divided)}"]
    more = [f"{len(missed) - LISTED} more do not hold"] if len(missed) > LISTED else []
    return [case.told(divided) for case in missed[:LISTED]] + more


def _smallest(cases: Sequence[Case]) -> str:
    seeded = sorted((case for case in cases if case.over == "seeds" and case.count > 1), key=Case.reach)
    if not seeded:
        return ""
    first, last = seeded[0], seeded[-1]
    range_ = f"{first.reach():.2g}" + (
        f" ({first.label}) to {last.reach():.2g} ({last.label})" if len(seeded) > 1 else ""
    )
    return f"{first.count} seeds can decide effects from {range_} on"


def _plain(case: Case, outcome: str) -> dict[str, Any]:
    kept = ("label", "value", "bound", "threshold", "below", "ours", "over", "count")
    data = {name: getattr(case, name) for name in (kept if case.over else ("label", "value", "threshold"))}
    plain = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in data.items()}
    return {**plain, "verdict": outcome}


def _goal(above: float | None, below: float | None) -> tuple[float, bool]:
    if (above is None) == (below is None):
        raise RobustsegError(
            f"expected one threshold, above or below, got above={above} and below={below}; try one of them"
        )
    return (above, False) if above is not None else (float(below or 0.0), True)
