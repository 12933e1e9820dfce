"""What the study of Bär et al. 2020 measures, its records by role, and the paper's own figures. Pure, without torch.

The corrected answer is a choice image by image between answers that were measured alone, so every threshold delta of the
vote follows from one measurement: the per-image counts of the networks and the scores d of the triplet.

Source: Bär, Klingner, Varghese, Hüger, Schlicht, Fingscheidt, CVPR Workshops 2020, tables 1 to 7.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robustseg.core.errors import RobustsegError
from robustseg.monitor import conformal
from robustseg.results import metrics
from robustseg.results.record import Counts, Record


class Attack(NamedTuple):
    """A perturbation and the role of the network that it is made against."""

    name: str
    perturbation: str
    source: str


LLCM = "baer2020_llcm(budget='linf:{}/255')"
PAPER = tuple(Attack(f"{who}-AE {eps}", LLCM.format(eps), who) for eps in (1, 10) for who in "TS")
COLUMNS = ("clean", *(attack.name for attack in PAPER))
MAIN, OTHER = "down2-0", "down2-1"
"""The adaptive network that is attacked, and the one that the attacker of the grey box trained for himself."""
DELTAS = (0.0, 0.1, 0.2, 0.5)
DELTA = 0.1
RATE = 0.01

LAYERS = {
    "none": "no IFM (control)",
    "all": "all (Baer 2019)",
    "updown": "down 1-3 + up 1-2",
    "rest": "rest only",
    "down": "down 1-3",
    "up": "up 1-2",
    "down1": "down 1",
    "down2": "down 2",
    "down3": "down 3",
}
TABLE_1 = {"T": (75.43, 23.35, 95.07, 2.21, 70.05), "S": (66.06, 90.08, 14.94, 64.82, 1.63)}
TABLE_2 = {
    "all": (54.10, 49.27, 31.80, 31.39, 13.96),
    "updown": (60.77, 59.16, 43.60, 48.05, 26.40),
    "rest": (50.37, 42.09, 24.65, 23.22, 8.43),
    "down": (54.55, 52.88, 49.50, 46.33, 37.08),
    "up": (65.05, 55.94, 14.42, 35.80, 2.63),
    "down1": (63.19, 59.71, 46.44, 48.61, 30.62),
    "down2": (61.00, 58.81, 51.87, 49.61, 37.19),
    "down3": (60.02, 54.42, 30.43, 37.72, 8.62),
}
TABLE_3 = {
    ("down1", 0.5): (63.46, 59.81, 45.72, 48.05, 29.26),
    ("down1", 0.6): (63.19, 59.71, 46.44, 48.61, 30.62),
    ("down1", 0.7): (60.25, 56.48, 49.94, 47.84, 36.35),
    ("down1", 0.8): (54.93, 52.87, 46.98, 44.79, 35.10),
    ("down1", 0.9): (28.82, 27.18, 26.12, 22.17, 22.36),
    ("down2", 0.5): (60.52, 58.28, 49.00, 48.07, 32.15),
    ("down2", 0.6): (61.00, 58.81, 51.87, 49.61, 37.19),
    ("down2", 0.7): (59.00, 56.69, 52.45, 48.60, 40.23),
    ("down2", 0.8): (55.98, 54.76, 50.59, 46.82, 39.93),
    ("down2", 0.9): (54.41, 53.36, 50.86, 46.73, 40.45),
}
TABLE_4 = {  # how often T answers, of 59
    0.0: (40, 0, 58, 0, 59),
    0.1: (59, 0, 59, 0, 59),
    0.2: (59, 1, 59, 0, 59),
    0.5: (59, 19, 59, 0, 59),
}
TABLE_5 = {"all": (53.01, 45.81, 28.55, 27.74, 11.14), "down2": (61.12, 58.60, 48.39, 48.67, 33.38)}
TABLE_6 = {  # of 441
    0.0: (388, 0, 441, 0, 440),
    0.1: (440, 0, 441, 0, 441),
    0.2: (441, 0, 441, 0, 441),
    0.5: (441, 155, 441, 4, 441),
}
TABLE_7 = {
    "T": (75.77, 16.89, 72.12, 1.84, 54.02),
    "S": (64.55, 58.39, 9.14, 41.21, 0.87),
    "A": (61.12, 58.60, 48.39, 48.67, 33.38),
    "T/S": (75.74, 58.39, 72.12, 41.21, 54.02),
    "T/A": (75.74, 58.60, 72.12, 48.67, 54.02),
}


@dataclass(frozen=True)
class Names:
    """By what records tell what they are of: specs of the static networks and of the data.

    Args:
        teacher, student: network specs.
        choose, report: data specs.
        decisive: the part of the reported images (its ids start so) where T must be above S for claim B2; "" is all.
    """

    teacher: str
    student: str
    choose: str
    report: str
    decisive: str = ""

    def role(self, spec: str) -> str:
        """`T`, `S`, `ROW-SEED` of an adaptive network, `triplet:ROW-SEED`; the spec itself for any other."""
        if spec in (self.teacher, self.student):
            return "T" if spec == self.teacher else "S"
        named = re.search(r"networks/([^/']+)/adaptive\.safetensors", spec.replace("\\", "/"))
        if not named:
            return spec
        return f"triplet:{named[1]}" if spec.startswith("triplet(") else named[1]


def row_name(row: str, alpha: float = 0.6) -> str:
    """The name of the runs of a row, to which `-SEED` is added: `down2`, `down2_alpha0.9`."""
    return row if alpha == 0.6 else f"{row}_alpha{alpha:g}"


def beyond(steps: int) -> tuple[Attack, ...]:
    """The attacks that the paper leaves out, all at 10/255: so many steps on one network, half of them on several."""
    start = f"pgd(budget='linf:10/255', steps={steps}"
    joint = f"pgd(budget='linf:10/255', steps={max(1, steps // 2)}"
    triplet = f"triplet:{MAIN}"
    best = "judge='wrong_pixels'"
    return (
        Attack("PGD on T", f"{start})", "T"),
        Attack("PGD on S", f"{start})", "S"),
        Attack("PGD on A", f"{start})", MAIN),
        Attack("T + S jointly", f"{joint}, {best}, objective='members:teacher,student')", triplet),
        Attack("T + S + A jointly", f"{joint}, {best}, objective='members')", triplet),
        Attack("T + S + A, evading the detector", f"{joint}, judge='unnoticed', objective='evade')", triplet),
        Attack("grey box: T + S + the attacker's own A", f"{joint}, {best}, objective='members')", f"triplet:{OTHER}"),
    )


def vote(first: Counts, other: Counts, scores: Sequence[float], delta: float) -> Counts:
    """What the corrected answer counts: image by image the other network where d >= delta, else the first.

    Args:
        first, other: counts of T, and of S or A, on the same images.
        scores: d of each image, as the triplet measured it.
        delta: the threshold.

    Returns:
        Per-image counts equal to those of the triplet; the confusion over the set is left 0.

    Raises:
        RobustsegError: not the same images.
    """
    if first.ids != other.ids or len(scores) != len(first.ids):
        raise RobustsegError(f"expected the same images, got {len(first.ids)}, {len(other.ids)} and {len(scores)}")
    speaks = (np.asarray(scores, np.float64) >= delta)[:, None]
    chosen = (np.where(speaks, getattr(other, n), getattr(first, n)) for n in ("tp", "fp", "fn"))
    return Counts(first.ids, np.zeros_like(first.confusion), *chosen)


class Figures:
    """Records by role: which network, under which attack, on which images. All figures are in percent."""

    def __init__(self, records: Sequence[Record], names: Names, *, steps: int):
        self.names, self.attacks = names, (*PAPER, *beyond(steps))
        known = {(a.perturbation, a.source): a.name for a in self.attacks}
        self._found: dict[tuple[str, str, str], Record] = {}
        for r in records:
            column = "clean" if r.clean else known.get((r.perturbation, names.role(r.source)))
            if column:
                self._found[names.role(r.network), column, r.data] = r
        self.adaptive = sorted({n for n, _, _ in self._found if re.fullmatch(r"[^:]+-\d+", n)})

    def record(self, network: str, column: str, *, chosen: bool = False) -> Record | None:
        """The record of a network; `chosen`: on the images to choose on."""
        return self._found.get((network, column, self.names.choose if chosen else self.names.report))

    def runs(self, row: str) -> list[str]:
        """The adaptive networks of a row, by seed."""
        return [name for name in self.adaptive if name.rpartition("-")[0] == row]

    def groups(self) -> dict[str, list[int] | None]:
        """The reported images in parts by the start of their ids, then all of them."""
        record = self.record("T", "clean")
        parts: dict[str, list[int] | None] = {}
        for i, name in enumerate(record.ids if record else ()):
            place = parts.setdefault(name.partition("_")[0], [])
            if place is not None:
                place.append(i)
        several = record is not None and 1 < len(parts) < len(record.ids)
        return {**(parts if several else {}), "all": None}

    def miou(self, network: str, column: str, *, chosen: bool = False, images: list[int] | None = None) -> float:
        """Pooled mIoU; NaN where it was not run."""
        found = self.record(network, column, chosen=chosen)
        return 100 * metrics.miou(found.counts, images) if found else math.nan

    def row(self, row: str, column: str, *, chosen: bool = False, images: list[int] | None = None) -> list[float]:
        """mIoU of each seed of a row."""
        values = [self.miou(name, column, chosen=chosen, images=images) for name in self.runs(row)]
        return [v for v in values if not math.isnan(v)]

    def scores(self, name: str, column: str, *, chosen: bool = False) -> list[float]:
        """d of each image in the triplet with this adaptive network."""
        found = self.record(f"triplet:{name}", column, chosen=chosen)
        return found.scores["against_teacher"] if found else []

    def fitted(self, name: str) -> float:
        """The threshold with 1 % false alarms on images like those to choose on, or the smallest rate they allow."""
        scores = self.scores(name, "clean", chosen=True)
        return conformal.threshold(np.array(scores), max(RATE, 1 / (len(scores) + 1))) if scores else math.nan

    def counts(self, name: str, column: str, delta: float, other: str = "A") -> Counts | None:
        """Corrected counts of the T/A vote or, with `other='S'`, of the T/S vote."""
        first, second = self.record("T", column), self.record(name if other == "A" else other, column)
        scores = self.scores(name, column)
        if first is None or second is None or not scores or math.isnan(delta):
            return None
        return vote(first.counts, second.counts, scores, delta)

    def corrected(
        self, name: str, column: str, delta: float, other: str = "A", images: list[int] | None = None
    ) -> float:
        """mIoU of `counts`."""
        found = self.counts(name, column, delta, other)
        return 100 * metrics.miou(found, images) if found else math.nan

    def watched(self) -> list[str]:
        """The adaptive networks of down 2 whose triplets were measured under every attack of the paper."""
        return [n for n in self.runs("down2") if all(self.scores(n, c) for c in COLUMNS)]

    def errors(self, name: str, delta: float, columns: Sequence[str] = COLUMNS) -> float:
        """Share of images that the wrong network answers, in percent: S or A on T-AEs is right, else T."""
        wrong = [(d >= delta) != column.startswith("T-AE") for column in columns for d in self.scores(name, column)]
        return 100 * float(np.mean(wrong)) if wrong else math.nan
