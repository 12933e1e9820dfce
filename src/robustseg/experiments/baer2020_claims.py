"""Baer et al. 2020 from records: seven tables, ours beside theirs, an eighth beyond the paper, and the claims B1 to B9.

Pure functions of records, without torch. The corrected answer is a choice image by image between answers that were
measured alone, so every threshold delta of the vote follows from one measurement: the per-image counts of the
networks and the scores d of the triplet.

Source: Baer, Klingner, Varghese, Hueger, Schlicht, Fingscheidt, CVPR Workshops 2020, tables 1 to 7.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robustseg import metrics
from robustseg.experiments.study import (
    HELD,
    NOT_HELD,
    NOT_TESTABLE,
    Beside,
    Cell,
    Finding,
    Table,
    exceeds,
    together,
)
from robustseg.monitor import conformal
from robustseg.records import Counts, Record, RobustsegError


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


def tables(figures: Figures) -> list[Table]:
    """Tables 1 to 7 and the one beyond the paper."""
    return [
        _table_1(figures),
        _layers(figures),
        _alphas(figures),
        _detection(
            figures, "Table 4: how often T / the other answers, on the images to choose on", TABLE_4, chosen=True
        ),
        _adaptive(figures),
        _detection(figures, "Table 6: how often T / the other answers, reported images", TABLE_6, chosen=False),
        _votes(figures),
        _beyond(figures),
    ]


def _beside(values: Sequence[float], theirs: float | None = None) -> Beside:
    return Beside(tuple(v for v in values if not math.isnan(v)), theirs)


def _theirs(values: Sequence[float] | None, i: int) -> float | None:
    return values[i] if values else None


def _q(figures: Figures, network: str, column: str, *, chosen: bool = False) -> float:
    return 100 * figures.miou(network, column, chosen=chosen) / figures.miou(network, "clean", chosen=chosen)


def _table_1(f: Figures) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for who in "TS":
        values = [f.miou(who, "clean", chosen=True), *(_q(f, who, c, chosen=True) for c in COLUMNS[1:])]
        rows.append((who, *(_beside([v], TABLE_1[who][i]) for i, v in enumerate(values))))
    title = "Table 1: the static networks on the images to choose on, mIoU and Q in %"
    return Table(title, ("network", "clean", *(f"Q {c}" for c in COLUMNS[1:])), tuple(rows))


def _layers(f: Figures) -> Table:
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (label, *(_beside(f.row(row, c, chosen=True), _theirs(TABLE_2.get(row), i)) for i, c in enumerate(COLUMNS)))
        for row, label in LAYERS.items()
    )
    return Table(
        "Table 2: A by the layers of the feature term, images to choose on, mIoU in %", ("layers", *COLUMNS), rows
    )


def _alphas(f: Figures) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for (row, alpha), theirs in TABLE_3.items():
        cells = [f.row(row_name(row, alpha), c, chosen=True) for c in COLUMNS]
        mean = list(np.mean(cells, 0)) if all(cells) else []
        beside = [_beside(v, theirs[i]) for i, v in enumerate(cells)]
        rows.append((f"{LAYERS[row]}, {alpha:g}", *beside, _beside(mean, float(np.mean(theirs)))))
    return Table(
        "Table 3: A by alpha, images to choose on, mIoU in %", ("layers, alpha", *COLUMNS, "mean"), tuple(rows)
    )


def _detection(f: Figures, title: str, theirs: Mapping[float, tuple[int, ...]], *, chosen: bool) -> Table:
    total = theirs[0.5][0]
    rows: list[tuple[Cell, ...]] = []
    fitted = [(f"{f.fitted(n):.4f} (fitted), {n}", n, f.fitted(n)) for n in f.runs("down2") if f.scores(n, "clean")]
    for label, name, delta in [*((f"{d:g}", MAIN, d) for d in (0.0, 0.05, *DELTAS[1:])), *fitted]:
        cells = []
        for i, column in enumerate(COLUMNS):
            scores = np.array(f.scores(name, column, chosen=chosen))
            other = int((scores >= delta).sum())
            text = f"{len(scores) - other}/{other}" if len(scores) else "not run"
            paper = theirs.get(delta) if name == MAIN else None
            cells.append(text + (f" ({paper[i]}/{total - paper[i]})" if paper else ""))
        rows.append((label, *cells))
    note = "" if chosen else _alarm_rates(f)
    return Table(title, ("delta", *COLUMNS), tuple(rows), note)


def _alarm_rates(f: Figures) -> str:
    """How often clean images are judged attacked at the fitted threshold, by part of the images."""
    said = []
    for name in f.runs("down2"):
        clean = np.array(f.scores(name, "clean"))
        parts = []
        for group, ids in f.groups().items() if len(clean) else ():
            alarms = (clean if ids is None else clean[ids]) >= f.fitted(name)
            low, high = conformal.rate_interval(int(alarms.sum()), len(alarms))
            parts.append(f"{group} {alarms.sum()} of {len(alarms)} ({low:.0%} to {high:.0%})")
        said += [f"{name}: {', '.join(parts)}"] if parts else []
    if not said:
        return ""
    return (
        f"Clean images judged attacked at the fitted delta (95 % intervals): {'; '.join(said)}. Here 1 % is measured, not "
        "promised: frames of one drive are not exchangeable with those of another, nor with each other."
    )


def _adaptive(f: Figures) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for row in ("none", "all", "down2"):
        for group, ids in f.groups().items():
            paper = TABLE_5.get(row) if ids is None else None
            cells = (_beside(f.row(row, c, images=ids), _theirs(paper, i)) for i, c in enumerate(COLUMNS))
            rows.append((LAYERS[row], group, *cells))
    return Table("Table 5: A on the reported images, mIoU in %", ("layers", "images", *COLUMNS), tuple(rows))


def _votes(f: Figures) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for group, ids in f.groups().items():
        for model, theirs in TABLE_7.items():
            paper = theirs if ids is None else None
            for label, delta in (("0.1", DELTA), ("fitted", None)) if "/" in model else (("", None),):
                cells = []
                for i, column in enumerate(COLUMNS):
                    if model in "TS":
                        values = [f.miou(model, column, images=ids)]
                    elif model == "A":
                        values = f.row("down2", column, images=ids)
                    else:
                        values = [
                            f.corrected(n, column, f.fitted(n) if delta is None else delta, model[-1], ids)
                            for n in f.watched()
                        ]
                    cells.append(_beside(values, _theirs(paper if label != "fitted" else None, i)))
                rows.append((f"{model} {label}".strip(), group, *cells))
    note = "A and the votes: down 2. The delta of a vote stands after it."
    return Table(
        "Table 7: the corrected answer on the reported images, mIoU in %",
        ("network", "images", *COLUMNS),
        tuple(rows),
        note,
    )


def headline(figures: Figures) -> dict[str, float]:
    """The corrected mIoU of the triplet `MAIN` under each attack that was run, at the fitted threshold, in percent."""
    names = ("clean", *(attack.name for attack in figures.attacks))
    values = {name: figures.corrected(MAIN, name, figures.fitted(MAIN)) for name in names}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _beyond(f: Figures) -> Table:
    fitted, groups = f.fitted(MAIN), f.groups()
    rows: list[tuple[Cell, ...]] = []
    for name in ("clean", *(attack.name for attack in f.attacks)):
        alone = [_beside([f.miou(who, name)]) for who in ("T", "S", MAIN)]
        scores = np.array(f.scores(MAIN, name))
        noticed = f"{(scores >= fitted).mean():.0%}" if len(scores) else "not run"
        votes = [_beside([f.corrected(MAIN, name, fitted, "A", ids)]) for ids in groups.values()]
        rows.append((name, *alone, _beside([f.corrected(MAIN, name, DELTA)]), *votes, noticed))
    found = [c for a in f.attacks if (c := f.counts(MAIN, a.name, fitted))]
    note = ""
    if found:
        values = headline(f)
        worst = min((n for n in values if n != "clean"), key=values.__getitem__)
        each = 100 * metrics.worst(found).miou
        note = (
            f"Worst corrected mIoU at the fitted delta {fitted:.4f}: **{values[worst]:.1f} %** ({worst}); "
            f"{each:.1f} % where each image takes its worst attack."
        )
    columns = ("attack", "T", "S", "A", "T/A 0.1", *(f"T/A fitted, {g}" for g in groups), "T judged attacked")
    return Table("Beyond the paper: attackers who know more than one network, mIoU in %", columns, tuple(rows), note)


def findings(figures: Figures) -> list[Finding]:
    """The claims B1 to B9 on the reported images, with their verdicts."""
    return [claim(figures) for claim in (_b1, _b2, _b3, _b4, _b5, _b6, _b7, _b8, _b9)]


def _b1(f: Figures) -> Finding:
    own = {who: _q(f, who, f"{who}-AE 10") for who in "TS"}
    weak = {"T": _q(f, "T", "S-AE 1"), "S": _q(f, "S", "T-AE 1")}
    strong = {"T": _q(f, "T", "S-AE 10"), "S": _q(f, "S", "T-AE 10")}
    parts = [exceeds([5 - q], seeds=1) for q in own.values()] + [exceeds([q], 85, seeds=1) for q in weak.values()]
    parts += [exceeds([v], seeds=1) for q in strong.values() for v in (q - 50, 80 - q)]
    numbers = "; ".join(
        f"{who}: own strong Q {own[who]:.1f} %, other's weak {weak[who]:.1f} %, other's strong {strong[who]:.1f} %"
        for who in "TS"
    )
    statement = "each static network breaks under its own attack (Q < 5 % at 10/255) and stands the other's (Q > 85 % at 1/255, 50 to 80 % at 10/255)"
    return Finding("B1", statement, together(parts), numbers)


def _b2(f: Figures) -> Finding:
    decisive = f.groups().get(f.names.decisive)
    lead = f.miou("T", "clean", images=decisive) - f.miou("S", "clean", images=decisive)
    gaps = {
        "own 1": _q(f, "T", "T-AE 1") - _q(f, "S", "S-AE 1"),
        "own 10": _q(f, "T", "T-AE 10") - _q(f, "S", "S-AE 10"),
        "other's 1": _q(f, "T", "S-AE 1") - _q(f, "S", "T-AE 1"),
        "other's 10": _q(f, "T", "S-AE 10") - _q(f, "S", "T-AE 10"),
    }
    numbers = ", ".join(f"{name} {gap:+.1f}" for name, gap in gaps.items())
    place = f.names.decisive or "all images"
    numbers = f"clean T - S {lead:+.1f} points on {place}; Q of T less Q of S, points: {numbers}"
    testable = lead >= 2
    verdict = together([exceeds([gap], seeds=1) for gap in gaps.values()]) if testable else NOT_TESTABLE
    return Finding("B2", "the larger T keeps a higher Q than S under its own and the other's attack", verdict, numbers)


def _gaps(f: Figures, one: str, other: str, column: str) -> list[float]:
    """The difference of two rows, seed by seed."""
    seeds = [n.rpartition("-")[2] for n in f.runs(one) if f"{other}-{n.rpartition('-')[2]}" in f.adaptive]
    found = [f.miou(f"{one}-{s}", column) - f.miou(f"{other}-{s}", column) for s in seeds]
    return [gap for gap in found if not math.isnan(gap)]


def _b3(f: Figures) -> Finding:
    parts, said = {}, []
    for row in ("down2", "updown"):
        gaps = {c: _gaps(f, row, "all", c) for c in COLUMNS}
        parts[row] = together([exceeds(g) for g in gaps.values()])
        text = ", ".join(f"{c} {Beside(tuple(g))}" for c, g in gaps.items()) if all(gaps.values()) else "not run"
        said.append(f"{LAYERS[row]} less all layers, points: {text}")
    run = [v for v in parts.values() if v != NOT_TESTABLE]
    statement = "a layer subset (down 2; down 1-3 + up 1-2) beats all layers in all five columns, as far as run"
    return Finding("B3", statement, together(run) if run else NOT_TESTABLE, "; ".join(said))


def _b4(f: Figures) -> Finding:
    rows = [row for row in LAYERS if row not in ("none",)]
    statement = "among the layer subsets up-only is best clean and worst on strong S-AEs, rest-only is worst clean, and down-only beats up-only on S-AEs"
    missing = [LAYERS[row] for row in rows if not f.row(row, "S-AE 10")]
    if missing:
        return Finding("B4", statement, NOT_TESTABLE, f"not run: {', '.join(missing)}")
    subsets = [row for row in rows if row not in ("all", "up")]
    parts = [exceeds(_gaps(f, "up", row, "clean")) for row in subsets]
    parts += [exceeds(_gaps(f, row, "up", "S-AE 10")) for row in subsets]
    parts += [exceeds(_gaps(f, row, "rest", "clean")) for row in rows if row not in ("all", "rest")]
    parts += [exceeds(_gaps(f, "down", "up", c)) for c in ("S-AE 1", "S-AE 10")]
    numbers = ", ".join(
        f"{LAYERS[r]} {Beside(tuple(f.row(r, 'clean')))} and {Beside(tuple(f.row(r, 'S-AE 10')))}" for r in rows
    )
    return Finding("B4", statement, together(parts), f"clean and S-AE 10: {numbers}")


def _b5(f: Figures) -> Finding:
    high = {row: row_name(row, 0.9) for row in ("down1", "down2")}
    statement = "for down 2, alpha 0.9 in place of 0.6 lowers clean and raises strong S-AEs; for down 1 it halves clean"
    missing = [name for row, other in high.items() for name in (row, other) if not f.row(name, "S-AE 10")]
    if missing:
        return Finding("B5", statement, NOT_TESTABLE, f"not run: {', '.join(missing)}")
    clean, strong = _gaps(f, "down2", high["down2"], "clean"), _gaps(f, high["down2"], "down2", "S-AE 10")
    kept = [a / b for a, b in zip(f.row(high["down1"], "clean"), f.row("down1", "clean"), strict=False)]
    parts = [exceeds(clean), exceeds(strong), exceeds([0.5 - share for share in kept])]
    numbers = f"down 2: clean {Beside(tuple(-g for g in clean))}, S-AE 10 {Beside(tuple(strong))} points; down 1 keeps {np.mean(kept):.0%} of clean"
    return Finding("B5", statement, together(parts), numbers)


def _b6(f: Figures) -> Finding:
    wanted = {"clean": 8.11, "S-AE 1": 19.84, "T-AE 10": 20.93, "S-AE 10": 22.24}
    gaps = {c: _gaps(f, "down2", "all", c) for c in wanted}
    parts = [exceeds(gaps[c], wanted[c] / 2) for c in wanted]
    numbers = ", ".join(f"{c} {Beside(tuple(gaps[c]), theirs)}" for c, theirs in wanted.items())
    statement = "A(down 2) gains on A(all) about 8 points clean and about 20 on S-AE 1, T-AE 10 and S-AE 10; held from half of that on"
    return Finding("B6", statement, together(parts), f"gain in points: {numbers}")


def _b7(f: Figures) -> Finding:
    names = f.watched()
    at = {d: [f.errors(n, d) for n in names] for d in (DELTA, 0.0, 0.5)}
    clean = {d: [f.errors(n, d, ["clean"]) for n in names] for d in (DELTA, 0.0)}
    weak = {d: [f.errors(n, d, ["T-AE 1"]) for n in names] for d in (DELTA, 0.5)}
    parts = [
        exceeds([1 - e for e in at[DELTA]]),
        exceeds([1 - e for e in clean[DELTA]]),
        exceeds([e for e in clean[0.0]], 5),
        exceeds([e for e in weak[0.5]], 15),
    ]
    fitted = [f.errors(n, f.fitted(n)) for n in names]
    each = ", ".join(f"{c} {Beside(tuple(f.errors(n, DELTA, [c]) for n in names))}" for c in COLUMNS)
    numbers = (
        f"wrong verdicts in % at delta 0.1: {Beside(tuple(at[DELTA]))} ({each}); clean at delta 0: {Beside(tuple(clean[0.0]))}; "
        f"weak T-AEs missed at delta 0.5: {Beside(tuple(weak[0.5]))}; at the fitted delta: {Beside(tuple(fitted))}"
    )
    statement = "at delta 0.1 at most 1 % of all verdicts and of those on clean images are wrong, delta 0 blames T on clean images (> 5 %), delta 0.5 misses weak T-AEs (> 15 %)"
    return Finding("B7", statement, together(parts), numbers)


def _b8(f: Figures) -> Finding:
    verdicts, said = {}, []
    for label in ("fitted", "0.1"):
        parts, each = [], []
        for column in COLUMNS:
            votes, best = [], []
            for name in f.watched():
                votes.append(f.corrected(name, column, DELTA if label == "0.1" else f.fitted(name)))
                best.append(f.miou(name if column.startswith("T-AE") else "T", column))
            parts.append(exceeds([v - b for v, b in zip(votes, best, strict=True)], -0.5))
            if column != "clean":
                parts.append(exceeds([100 * v / f.miou("T", "clean") for v in votes], 50))
            each.append(f"{column} {Beside(tuple(votes))} of {Beside(tuple(best))}")
        verdicts[label] = together(parts)
        said.append(f"at delta {label} {verdicts[label]}: {', '.join(each)}")
    statement = "the T/A vote, at the threshold chosen on held-out images, is within half a point of A on T-AEs and of T elsewhere, and keeps half of T's clean mIoU under all four attacks"
    return Finding("B8", statement, verdicts["fitted"], "; ".join(said))


def _b9(f: Figures) -> Finding:
    statement = "beyond the paper: an attacker who knows the networks breaks the vote (less than half of T's clean mIoU is left)"
    values = {n: v for n, v in headline(f).items() if n in {a.name for a in f.attacks} - set(COLUMNS)}
    if not values:
        return Finding("B9", statement, NOT_TESTABLE, "not run")
    share = 100 * min(values.values()) / f.miou("T", "clean")
    each = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
    verdict = HELD if share < 50 else NOT_HELD
    return Finding("B9", statement, verdict, f"{share:.1f} % of T's clean mIoU is left; corrected mIoU under {each}")
