"""Bär et al. 2020 in tables: tables 1 to 7, ours beside the paper's, and an eighth beyond the paper. Without torch."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from robustseg.monitor import conformal
from robustseg.results import metrics
from robustseg.studies.baer2020 import (
    COLUMNS,
    DELTA,
    LAYERS,
    MAIN,
    answered,
    corrected,
    fitted,
    groups,
    headline,
    miou,
    row_miou,
    row_name,
    scores,
    seeds_of,
    voted,
)
from robustseg.studies.evidence import Evidence
from robustseg.studies.page import Beside, Cell, Table
from robustseg.studies.study import CLEAN

DELTAS = (0.0, 0.1, 0.2, 0.5)
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


def tables(f: Evidence) -> list[Table]:
    """Tables 1 to 7 and the one beyond the paper."""
    how_often = "how often T / the other answers,"
    return [
        _table_1(f),
        _layers(f),
        _alphas(f),
        _detection(f, f"Table 4: {how_often} on the images to choose on", TABLE_4, chosen=True),
        _adaptive(f),
        _detection(f, f"Table 6: {how_often} reported images", TABLE_6, chosen=False),
        _votes(f),
        _beyond(f),
    ]


def _beside(values: Sequence[float], theirs: Sequence[float] | None = None, i: int = 0) -> Beside:
    return Beside(tuple(v for v in values if not math.isnan(v)), theirs[i] if theirs else None)


def _q(f: Evidence, network: str, column: str, *, chosen: bool = False) -> float:
    return 100 * miou(f, network, column, chosen=chosen) / miou(f, network, CLEAN, chosen=chosen)


def _table_1(f: Evidence) -> Table:
    rows: list[list[Cell]] = []
    for who in "TS":
        values = [miou(f, who, CLEAN, chosen=True), *(_q(f, who, c, chosen=True) for c in COLUMNS[1:])]
        rows.append([who, *(_beside([v], TABLE_1[who], i) for i, v in enumerate(values))])
    title = "Table 1: the static networks on the images to choose on, mIoU and Q in %"
    return Table(title, ("network", "clean", *(f"Q {c}" for c in COLUMNS[1:])), rows)


def _layers(f: Evidence) -> Table:
    rows: list[list[Cell]] = []
    for row, label in LAYERS.items():
        cells = [row_miou(f, row, c, chosen=True) for c in COLUMNS]
        rows.append([label, *(_beside(v, TABLE_2.get(row), i) for i, v in enumerate(cells))])
    title = "Table 2: A by the layers of the feature term, images to choose on, mIoU in %"
    return Table(title, ("layers", *COLUMNS), rows)


def _alphas(f: Evidence) -> Table:
    rows: list[list[Cell]] = []
    for (row, alpha), theirs in TABLE_3.items():
        cells = [row_miou(f, row_name(row, alpha), c, chosen=True) for c in COLUMNS]
        mean = list(np.mean(cells, 0)) if all(cells) else []
        beside = [_beside(v, theirs, i) for i, v in enumerate(cells)]
        rows.append([f"{LAYERS[row]}, {alpha:g}", *beside, _beside(mean, [float(np.mean(theirs))])])
    return Table("Table 3: A by alpha, images to choose on, mIoU in %", ("layers, alpha", *COLUMNS, "mean"), rows)


def _detection(f: Evidence, title: str, theirs: Mapping[float, tuple[int, ...]], *, chosen: bool) -> Table:
    total, rows = theirs[0.5][0], list[list[Cell]]()
    own = [(f"{fitted(f, n):.4f} (fitted), {n}", n, fitted(f, n)) for n in seeds_of("down2") if scores(f, n, CLEAN)]
    for label, name, delta in [*((f"{d:g}", MAIN, d) for d in (0.0, 0.05, *DELTAS[1:])), *own]:
        cells, paper = list[str](), theirs.get(delta) if name == MAIN else None
        for i, column in enumerate(COLUMNS):
            d = np.array(scores(f, name, column, chosen=chosen))
            other = int((d >= delta).sum())
            text = f"{len(d) - other}/{other}" if len(d) else "not run"
            cells.append(text + (f" ({paper[i]}/{total - paper[i]})" if paper else ""))
        rows.append([label, *cells])
    return Table(title, ("delta", *COLUMNS), rows, "" if chosen else _alarm_rates(f))


def _alarm_rates(f: Evidence) -> str:
    """How often clean images are judged attacked at the fitted threshold, by part of the images."""
    said = []
    for name in seeds_of("down2"):
        clean, parts = np.array(scores(f, name, CLEAN)), []
        for group, ids in groups(f).items() if len(clean) else ():
            alarms = (clean if ids is None else clean[ids]) >= fitted(f, name)
            low, high = conformal.rate_interval(int(alarms.sum()), len(alarms))
            parts.append(f"{group} {alarms.sum()} of {len(alarms)} ({low:.0%} to {high:.0%})")
        said += [f"{name}: {', '.join(parts)}"] if parts else []
    if not said:
        return ""
    return (
        f"Clean images judged attacked at the fitted delta (95 % intervals): {'; '.join(said)}. Here 1 % is measured, not "
        "promised: frames of one drive are not exchangeable with those of another, nor with each other."
    )


def _adaptive(f: Evidence) -> Table:
    rows: list[list[Cell]] = []
    for row in ("none", "all", "down2"):
        for group, ids in groups(f).items():
            paper = TABLE_5.get(row) if ids is None else None
            cells = (_beside(row_miou(f, row, c, images=ids), paper, i) for i, c in enumerate(COLUMNS))
            rows.append([LAYERS[row], group, *cells])
    return Table("Table 5: A on the reported images, mIoU in %", ("layers", "images", *COLUMNS), rows)


def _votes(f: Evidence) -> Table:
    rows: list[list[Cell]] = []
    for group, ids in groups(f).items():
        for model, theirs in TABLE_7.items():
            for label in ("0.1", "fitted") if "/" in model else ("",):
                paper = theirs if ids is None and label != "fitted" else None
                values = [answered(f, model, column, label, ids) for column in COLUMNS]
                rows.append([f"{model} {label}".strip(), group, *(_beside(v, paper, i) for i, v in enumerate(values))])
    note = "A and the votes: down 2. The delta of a vote stands after it."
    title = "Table 7: the corrected answer on the reported images, mIoU in %"
    return Table(title, ("network", "images", *COLUMNS), rows, note)


def _beyond(f: Evidence) -> Table:
    delta, parts, rows = fitted(f, MAIN), groups(f), list[list[Cell]]()
    for name in (CLEAN, *(attack.name for attack in f.settings.attacks)):
        alone = [_beside([miou(f, who, name)]) for who in ("T", "S", MAIN)]
        d = np.array(scores(f, MAIN, name))
        noticed = f"{(d >= delta).mean():.0%}" if len(d) else "not run"
        votes = [_beside([corrected(f, MAIN, name, delta, "A", ids)]) for ids in parts.values()]
        rows.append([name, *alone, _beside([corrected(f, MAIN, name, DELTA)]), *votes, noticed])
    counts = [c for a in f.settings.attacks if (c := voted(f, MAIN, a.name, delta))]
    note = ""
    if counts:
        values = headline(f)
        worst = min((n for n in values if n != CLEAN), key=values.__getitem__)
        each = 100 * metrics.worst(counts).miou
        note = (
            f"Worst corrected mIoU at the fitted delta {delta:.4f}: **{values[worst]:.1f} %** ({worst}); "
            f"{each:.1f} % where each image takes its worst attack."
        )
    columns = ("attack", "T", "S", "A", "T/A 0.1", *(f"T/A fitted, {g}" for g in parts), "T judged attacked")
    return Table("Beyond the paper: attackers who know more than one network, mIoU in %", columns, rows, note)
