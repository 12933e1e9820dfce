"""What the study of Klingner et al. 2020 measures, and its records by network and perturbation. Pure, without torch.

Q of a noise is the mean over its draws; between strengths that were measured it lies on straight lines over log2 of the realised root mean square.

Source: Klingner, Bär, Fingscheidt, CVPR Workshops 2020 (arXiv 2004.11072).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from robustseg.results import metrics
from robustseg.results.record import Record
from robustseg.results.summary import mean_score
from robustseg.studies.legacy import SEEDS, Measure

KINDS = {
    "single": "labels alone",
    "control": "labels; video in batch norm alone",
    "multi": "labels and depth from video",
}
"""How the networks of the study are trained."""

NOISES = {
    "Gaussian": "gaussian(rms='{:g}/255')",
    "uniform": "uniform(rms='{:g}/255')",
    "sign": "sign(rms='{:g}/255')",
    "salt and pepper": "salt_and_pepper(rms='{:g}/255')",
}
ATTACKS = {
    "FGSM": "klingner2020_fgsm(budget='linf:{:g}/255')",
    "BIM": "klingner2020_bim(budget='linf:{:g}/255')",
    "PGD": "klingner2020_pgd(budget='linf:{:g}/255')",
}
SEA = "SEA"
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0)
"""Of the authors' later code, in n/255."""

HELD_VIDEO = "held-out video"
"""Where views and poses are measured, in names of measures."""


def name_of(kind: str, seed: int) -> str:
    """The name of a network of the study: `multi-0`."""
    return f"{kind}-{seed}"


def baseline_of(baseline: str, who: str) -> str:
    """The name of what a network is held against: `row median of multi-0`."""
    return f"{baseline} of {who}"


def sweep_kind(weight: float) -> str:
    """What networks of the sweep over lambda are called, before their seed: `lambda0.25`."""
    return f"lambda{weight:g}"


def depth_kinds(seeded: Iterable[float]) -> tuple[str, ...]:
    """The kinds whose depth and poses are measured: those with depth from video and several seeds."""
    return ("multi", *map(sweep_kind, seeded))


class Change(NamedTuple):
    """One perturbation that a network is measured under: its family, how strong in n/255, its spec, the seed of the draw."""

    family: str
    strength: float
    spec: str
    draw: int = 0


@dataclass(frozen=True)
class Changes:
    """What networks are measured under; strengths in n/255.

    Args:
        sea: spec of SEA, with a place for the strength. sea_strengths: of SEA.
        attacks: family -> spec with a place for the strength, as `ATTACKS`.
        strengths: of noises and attacks, for one network of each kind. few: for all other networks.
        draws: of each noise for one network of each kind; others see one.
    """

    sea: str
    sea_strengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    attacks: Mapping[str, str] = field(default_factory=lambda: dict(ATTACKS))
    strengths: tuple[float, ...] = STRENGTHS
    few: tuple[float, ...] = (1.0, 4.0, 8.0, 24.0, 32.0)
    draws: int = 10

    @property
    def families(self) -> tuple[str, ...]:
        """Noises, then attacks, without SEA."""
        return (*NOISES, *self.attacks)

    def of(self, who: str) -> list[Change]:
        """All that this network is measured under."""
        whole = who in {name_of(kind, 0) for kind in KINDS}
        strengths, draws = (self.strengths, self.draws) if whole else (self.few, 1)
        listed = [
            Change(f, s, spec.format(s), d) for f, spec in NOISES.items() for s in strengths for d in range(draws)
        ]
        listed += [Change(f, s, spec.format(s)) for f, spec in self.attacks.items() for s in strengths]
        return listed + [Change(SEA, s, self.sea.format(s)) for s in self.sea_strengths]


@dataclass(frozen=True)
class Evidence:
    """Everything that was measured, by the names of networks.

    Args:
        clean: of unperturbed images, by network. draws: by network, family and strength, one record a draw.
        measures: of depth and poses, and of what must be exact. changes: what was asked for.
        weight: lambda of the multi-task networks. weights: of the sweep, with one seed but for those in `seeded`.
        seeds: of each kind, and of the weights in `seeded`.
    """

    clean: Mapping[str, Record]
    draws: Mapping[tuple[str, str, float], Sequence[Record]]
    measures: Sequence[Measure]
    changes: Changes
    weight: float
    weights: tuple[float, ...]
    seeds: int = SEEDS
    seeded: tuple[float, ...] = ()

    def miou(self, who: str) -> float:
        """Clean mIoU in %, NaN where it was not measured."""
        record = self.clean.get(who)
        return 100 * metrics.miou(record.counts) if record else math.nan

    def q(self, who: str, family: str, strength: float) -> float:
        """Q in %, the mean over draws; NaN where it was not measured."""
        clean, draws = self.clean.get(who), self.draws.get((who, family, strength), ())
        if clean is None or not draws:
            return math.nan
        return 100 * float(np.mean([metrics.q(record.counts, clean.counts) for record in draws]))

    def worst_q(self, who: str, family: str, strength: float) -> float:
        """Q in % where each image takes its worst draw; NaN where it was not measured."""
        clean, draws = self.clean.get(who), self.draws.get((who, family, strength), ())
        before = metrics.miou(clean.counts) if clean else math.nan
        return (
            100 * metrics.worst([record.counts for record in draws]).miou / before if draws and before > 0 else math.nan
        )

    def mean_q(self, who: str, family: str) -> float:
        """Mean Q in % over the strengths that every network is measured at; NaN where one is missing."""
        strengths = self.changes.sea_strengths if family == SEA else self.changes.few
        return float(np.mean([self.q(who, family, strength) for strength in strengths]))

    def q_at(self, who: str, family: str, rms: float) -> float:
        """Q in % at a realised root mean square (n/255); NaN outside of what was measured."""
        known = [s for w, f, s in self.draws if (w, f) == (who, family)]
        points = sorted((self.realised(who, family, s), self.q(who, family, s)) for s in known)
        across, up = (
            (np.array(values) for values in zip(*points, strict=True)) if points else (np.zeros(0), np.zeros(0))
        )
        if not len(across) or not across[0] <= rms <= across[-1]:
            return math.nan
        return float(np.interp(math.log2(rms), np.log2(across), up))

    def realised(self, who: str, family: str, strength: float) -> float:
        """Root mean square of the change in n/255, the mean over images and draws."""
        draws = self.draws.get((who, family, strength), ())
        return 255 * float(np.mean([mean_score(record, "rms") for record in draws])) if draws else math.nan

    def by_seed(self, kind: str, value: Callable[[str], float]) -> tuple[float, ...]:
        """A value of each network of a kind; none where one is missing."""
        values = tuple(value(name_of(kind, seed)) for seed in range(self.seeds))
        return () if any(math.isnan(v) for v in values) else values

    def gains(self, above: str, below: str, value: Callable[[str], float]) -> tuple[float, ...]:
        """The value of one kind less that of another, seed by seed."""
        pairs = self.by_seed(above, value), self.by_seed(below, value)
        return tuple(a - b for a, b in zip(*pairs, strict=True)) if all(pairs) else ()

    def values(self, kind: str, who: str, name: str) -> list[float]:
        """A value of the measures of a kind, by image."""
        return [m.values[name] for m in self.measures if (m.kind, m.who) == (kind, who) and name in m.values]

    def mean(self, kind: str, who: str, name: str) -> float:
        """Its mean over images; NaN where it was not measured."""
        return float(np.mean(known)) if (known := self.values(kind, who, name)) else math.nan

    @property
    def sweep(self) -> dict[float, str]:
        """The kinds of the sweep: with lambda 0 the control is, with its own the multi-task network."""
        known = {0.0: "control", self.weight: "multi"}
        return {weight: known.get(weight, sweep_kind(weight)) for weight in self.weights}
