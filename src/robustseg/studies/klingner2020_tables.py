"""The tables of the study of Klingner et al. 2020: kinds side by side, one axis, draws of noise, the sweep, depth, the held-out video."""

import math

from robustseg.studies.evidence import Evidence
from robustseg.studies.klingner2020 import (
    COMPARED,
    DEPTHS,
    HELD_VIDEO,
    KINDS,
    NOISES,
    SEA,
    baseline_of,
    gains,
    mean,
    mean_q,
    miou,
    name_of,
    q,
    q_at,
    worst_q,
)
from robustseg.studies.page import Beside, Cell, Table, number

SHOWN = (2.0, 4.0, *COMPARED)
"""Realised root mean squares of the tables, in n/255."""
DEPTH_FIGURES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta_1", "delta_2", "delta_3")


def tables(f: Evidence) -> list[Table]:
    """All tables of the study."""
    axis = [_axis(f, kind) for kind in KINDS]
    return [_overview(f), _gains(f), *axis, _ensemble(f), _drawn(f), _sweep(f), *_depths(f), _held(f)]


def _whole(f: Evidence, kind: str, values: list[float]) -> Beside:
    """A figure of all seeds of a kind; not run where one is missing."""
    return Beside(tuple(values) if len(values) == len(f.study.seeds[kind]) else ())


def _figures(f: Evidence, kind: str) -> list[Cell]:
    """Clean mIoU, and mean Q of each family."""
    families = (*f.settings.changes.families, SEA)
    return [_whole(f, kind, f.by_seed(kind, value)) for value in (miou(f), *(mean_q(f, family) for family in families))]


def _overview(f: Evidence) -> Table:
    seeds, families = f.settings.seeds, (*f.settings.changes.families, SEA)
    rows = [(f"{kind} ({words})", *_figures(f, kind)) for kind, words in KINDS.items()]
    columns = ("training", "clean mIoU", *(f"Q {family}" for family in families))
    title = f"Clean mIoU and mean Q in %, {seeds} seed{'s' * (seeds != 1)} each"
    return Table(title, columns, rows, _strengths_said(f))


def _gains(f: Evidence) -> Table:
    """Each kind with depth less labels alone, and less the control."""
    kinds = ("multi", *(f.settings.sweep[weight] for weight in f.settings.seeded))
    rows = []
    for kind in kinds:
        for other in ("single", "control"):
            rows.append((kind, other, *(Beside(tuple(gain)) for gain in gains(f, kind, other).values())))
    note = "Differences seed by seed. Against the control, which sees the video in batch norm alone, a gain is due to depth."
    columns = ("gain of", "over", "clean mIoU", *(f"Q {family}" for family in f.settings.changes.families))
    return Table("Gains in points", columns, rows, note)


def _strengths_said(f: Evidence) -> str:
    changes = f.settings.changes
    few, sea = (", ".join(f"{s:g}" for s in listed) for listed in (changes.few, changes.sea_strengths))
    return f"Q: mean over the asked strengths {few} (SEA {sea}), in n/255."


def _axis(f: Evidence, kind: str) -> Table:
    rows = []
    for family in f.settings.changes.families:
        by_strength = q_at(f, kind, family, SHOWN).T.tolist()
        rows.append(
            (family, *(Beside(() if any(map(math.isnan, values)) else tuple(values)) for values in by_strength))
        )
    columns = ("perturbation", *(f"{rms:g}" for rms in SHOWN))
    note = "Not run: some seed was not measured on both sides of that strength. Curves of one seed at all strengths: `curves.svg`."
    return Table(f"Q in % at a realised RMS (n/255), {kind}", columns, rows, note)


def _ensemble(f: Evidence) -> Table:
    strengths = f.settings.changes.sea_strengths
    rows: list[tuple[Cell, ...]] = []
    for kind in KINDS:
        known = [q(f, who, SEA) for who in f.study.seeds[kind]]
        by_strength = [[values[s] for values in known if s in values] for s in strengths]
        rows.append((kind, *(_whole(f, kind, values) for values in by_strength)))
    return Table("Q in % under SEA, by eps in n/255", ("training", *(f"{s:g}" for s in strengths)), rows)


def _drawn(f: Evidence) -> Table:
    changes, rows = f.settings.changes, []
    for kind in KINDS:
        who = name_of(kind, 0)
        for family in NOISES:
            usual, worst = q(f, who, family), worst_q(f, who, family)
            cells = [f"{usual[s]:.1f} / {worst[s]:.1f}" if s in usual else "not run" for s in changes.strengths]
            rows.append((kind, family, *cells))
    columns = ("training", "noise", *(f"{s:g}" for s in changes.strengths))
    note = f"Mean / worst of {changes.draws} draws, by asked strength in n/255; the worst draw is chosen image by image. One seed of training."
    return Table("Noise as a mean and as an attack would have it: Q in %", columns, rows, note)


def _sweep(f: Evidence) -> Table:
    rows = []
    for weight, kind in f.settings.sweep.items():
        known = [who for who in f.study.seeds[kind] if f.record(who)]
        rows.append((f"{weight:g}", str(len(known)), *_figures(f, kind)))
    columns = ("lambda", "seeds", "clean mIoU", *(f"Q {family}" for family in (*f.settings.changes.families, SEA)))
    note = (
        f"{_strengths_said(f)} Lambda 0 is the control; which one the paper chose is not available. One seed is seed 0."
    )
    return Table("The sweep over lambda, in %", columns, rows, note)


def _depths(f: Evidence) -> list[Table]:
    made = []
    for kind, words in DEPTHS.items():
        rows = []
        for who in [w for network in f.settings.watching for w in (network, baseline_of("row median", network))]:
            rows.append((who, *(number(mean(f, f"depth {kind}", who, name), 3) for name in DEPTH_FIGURES)))
        note = (
            "Means over images; each depth map is scaled to the median of the truth first. The row median is the network's own over the video that "
            "it was trained on, and looks at no image."
        )
        made.append(Table(f"Depth on {words}", ("depth of", *DEPTH_FIGURES), rows, note))
    return made


HELD_FIGURES = (
    ("views", "loss", "row median"),
    ("views", "loss aligned", "row median"),
    ("pose", "ate", "straight ahead"),
)
"""What is told of the held-out video: names of measures, their value, and the baseline beside it."""


def _held(f: Evidence) -> Table:
    """Views and poses of the video that was held out."""
    rows = []
    for who in f.settings.watching:
        cells = []
        for what, value, baseline in HELD_FIGURES:
            names = who, baseline_of(baseline, who)
            cells += [number(mean(f, f"{what} {HELD_VIDEO}", name, value), 4) for name in names]
        rows.append((who, *cells, number(mean(f, f"views {HELD_VIDEO}", who, "masked"), 3)))
    columns = (
        "network",
        "loss of views",
        "by its row median",
        "loss of views, aligned",
        "by its row median",
        "pose error",
        "that of straight ahead",
        "share of pixels masked",
    )
    note = (
        "Loss of view synthesis for the network's own depth and for its row median: with the network's poses, and aligned, with poses found for each of the two by "
        "direct visual odometry; masked pixels count with the error of the neighbour as it is. Pose error: absolute trajectory error of Zhou et al. 2017 in "
        "metres, the mean over snippets of five frames, each scaled to the truth."
    )
    return Table("On the video that was held out", columns, rows, note)
