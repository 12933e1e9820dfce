"""Klingner et al. 2020 from what was measured: tables on the axis of realised strength, and the claims K1 to K5.

The paper's tables are not to be had (its abstract is), so nothing stands beside our figures. Two perturbations are compared where their
realised root mean squares are equal.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from robustseg.studies.klingner2020_evidence import (
    HELD_VIDEO,
    KINDS,
    NOISES,
    SEA,
    Evidence,
    baseline_of,
    depth_kinds,
    name_of,
    sweep_kind,
)
from robustseg.studies.legacy import HELD, NOT_HELD, NOT_TESTABLE, Beside, Cell, Finding, Table, exceeds, together

COMPARED = (8.0, 12.0, 16.0)
"""Realised root mean squares, in n/255, at which claim K1 compares."""
SHOWN = (2.0, 4.0, *COMPARED)
"""Those of the tables."""
EQUAL = 0.005
"""What still counts as "at least as much" between two attacks: half a point of Q."""
ROUNDING = 1e-9
"""The relative error of a gradient in float64 that is rounding."""


def tables(found: Evidence) -> list[Table]:
    """Kinds side by side, one axis, draws of noise, the sweep, depth, the held-out video."""
    axis = [_axis(found, kind) for kind in KINDS]
    return [
        _overview(found),
        *axis,
        _ensemble(found),
        _drawn(found),
        _sweep(found),
        *_depths(found),
        _held(found),
    ]


def _mean_q(found: Evidence, family: str) -> Callable[[str], float]:
    return lambda who: found.mean_q(who, family)


def _q(found: Evidence, family: str, strength: float) -> Callable[[str], float]:
    return lambda who: found.q(who, family, strength)


def _q_at(found: Evidence, family: str, rms: float) -> Callable[[str], float]:
    return lambda who: found.q_at(who, family, rms)


def _figure(value: float, digits: int = 1) -> str:
    return "not run" if math.isnan(value) else f"{value:.{digits}f}"


def _overview(found: Evidence) -> Table:
    families = (*found.changes.families, SEA)
    rows: list[tuple[Cell, ...]] = []
    for kind, words in KINDS.items():
        cells = [Beside(found.by_seed(kind, _mean_q(found, family))) for family in families]
        rows.append((f"{kind} ({words})", Beside(found.by_seed(kind, found.miou)), *cells))
    columns = ("training", "clean mIoU", *(f"Q {family}" for family in families))
    return Table(
        f"Clean mIoU and mean Q in %, {found.seeds} seed{'s' * (found.seeds != 1)} each",
        columns,
        tuple(rows),
        _strengths_said(found),
    )


def _strengths_said(found: Evidence) -> str:
    few, sea = (", ".join(f"{s:g}" for s in listed) for listed in (found.changes.few, found.changes.sea_strengths))
    return f"Q: mean over the asked strengths {few} (SEA {sea}), in n/255."


def _axis(found: Evidence, kind: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for family in found.changes.families:
        rows.append((family, *(Beside(found.by_seed(kind, _q_at(found, family, rms))) for rms in SHOWN)))
    columns = ("perturbation", *(f"{rms:g}" for rms in SHOWN))
    note = "Not run: some seed was not measured on both sides of that strength. Curves of one seed at all strengths: `curves.svg`."
    return Table(f"Q in % at a realised RMS (n/255), {kind}", columns, tuple(rows), note)


def _ensemble(found: Evidence) -> Table:
    strengths = found.changes.sea_strengths
    rows: list[tuple[Cell, ...]] = []
    for kind in KINDS:
        rows.append((kind, *(Beside(found.by_seed(kind, _q(found, SEA, strength))) for strength in strengths)))
    return Table("Q in % under SEA, by eps in n/255", ("training", *(f"{s:g}" for s in strengths)), tuple(rows))


def _drawn(found: Evidence) -> Table:
    rows = []
    for kind in KINDS:
        who = name_of(kind, 0)
        for family in NOISES:
            cells = [
                f"{_figure(found.q(who, family, s))} / {_figure(found.worst_q(who, family, s))}"
                if (who, family, s) in found.draws
                else "not run"
                for s in found.changes.strengths
            ]
            rows.append((kind, family, *cells))
    columns = ("training", "noise", *(f"{s:g}" for s in found.changes.strengths))
    note = f"Mean / worst of {found.changes.draws} draws, by asked strength in n/255; the worst draw is chosen image by image. One seed of training."
    return Table("Noise as a mean and as an attack would have it: Q in %", columns, tuple(rows), note)


def _sweep(found: Evidence) -> Table:
    families = (*found.changes.families, SEA)
    rows: list[tuple[Cell, ...]] = []
    for weight, kind in found.sweep.items():
        values = [found.miou, *(_mean_q(found, family) for family in families)]
        networks = [name_of(kind, seed) for seed in range(found.seeds) if name_of(kind, seed) in found.clean]
        known = [tuple(value(who) for who in networks) for value in values]
        cells = [Beside(() if any(map(math.isnan, figures)) else figures) for figures in known]
        rows.append((f"{weight:g}", str(len(networks)), *cells))
    columns = ("lambda", "seeds", "clean mIoU", *(f"Q {family}" for family in families))
    note = f"{_strengths_said(found)} Lambda 0 is the control; which one the paper chose is not to be had. One seed is seed 0."
    return Table("The sweep over lambda, in %", columns, tuple(rows), note)


DEPTHS = {"streets": "made-up streets", "dgp": "DGP frames, LiDAR"}
"""Where depth is measured: names of measures, and in words."""
DEPTH_FIGURES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta_1", "delta_2", "delta_3")


def _depths(found: Evidence) -> list[Table]:
    made = []
    for kind, words in DEPTHS.items():
        rows = []
        for who in [w for network in _depth_networks(found) for w in (network, baseline_of("row median", network))]:
            rows.append((who, *(_figure(found.mean(f"depth {kind}", who, name), 3) for name in DEPTH_FIGURES)))
        note = (
            "Means over images; each depth map is scaled to the median of the truth first. The row median is the network's own over the video that "
            "it was trained on, and looks at no image."
        )
        made.append(Table(f"Depth on {words}", ("depth of", *DEPTH_FIGURES), tuple(rows), note))
    return made


def _depth_networks(found: Evidence) -> list[str]:
    return [name_of(kind, seed) for kind in depth_kinds(found.seeded) for seed in range(found.seeds)]


HELD_FIGURES = (
    ("views", "loss", "row median"),
    ("views", "loss aligned", "row median"),
    ("pose", "ate", "straight ahead"),
)
"""What is told of the held-out video: names of measures, their value, and what it is held against."""


def _held(found: Evidence) -> Table:
    """Views and poses of the video that was held out."""
    rows = []
    for who in _depth_networks(found):
        cells = []
        for what, value, baseline in HELD_FIGURES:
            names = who, baseline_of(baseline, who)
            cells += [_figure(found.mean(f"{what} {HELD_VIDEO}", name, value), 4) for name in names]
        rows.append((who, *cells, _figure(found.mean(f"views {HELD_VIDEO}", who, "masked"), 3)))
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
    return Table("On the video that was held out", columns, tuple(rows), note)


def findings(found: Evidence) -> list[Finding]:
    """K1 to K5."""
    return [_k1(found), _k2(found), _k3(found), _k4(found), _k5(found)]


def _gained(values: Sequence[float]) -> str:
    """`+1.2 ± 0.4 held`."""
    if not values:
        return "not run"
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.1f}{spread} {exceeds(values)}"


def _k1(found: Evidence) -> Finding:
    order = (("Gaussian", "salt and pepper", 0.0), ("salt and pepper", "FGSM", 0.0), ("FGSM", "PGD", -100 * EQUAL))
    parts = {}
    for above, below, bound in order:
        values = found.by_seed("single", _least_gap(found, above, below))
        parts[f"{above} over {below}"] = values, exceeds(values, bound)
    said = "; ".join(
        f"{name} {np.min(values):+.1f} {verdict}" if values else f"{name} not run"
        for name, (values, verdict) in parts.items()
    )
    return Finding(
        "K1",
        "noise beats attack: at a realised RMS of 8, 12 and 16 /255, Q(Gaussian) > Q(salt and pepper) > Q(FGSM) >= Q(PGD) for the network "
        "trained on labels alone",
        together([verdict for _, verdict in parts.values()]),
        f"least gaps in points of Q over the three strengths and seeds: {said}",
    )


def _least_gap(found: Evidence, above: str, below: str) -> Callable[[str], float]:
    """The smallest lead in Q of one perturbation over another, of the strengths that K1 compares."""
    return lambda who: float(np.min([found.q_at(who, above, rms) - found.q_at(who, below, rms) for rms in COMPARED]))


def _compared(found: Evidence, above: str, below: str) -> tuple[list[str], str]:
    """The verdicts on one kind against another, on clean mIoU and on each family, and how to say them."""
    gains = {"clean mIoU": found.gains(above, below, found.miou)}
    for family in found.changes.families:
        gains[family] = found.gains(above, below, _mean_q(found, family))
    said = ", ".join(f"{name} {_gained(values)}" for name, values in gains.items())
    return [exceeds(values) for values in gains.values()], f"against {below} in points: {said}"


def _k2(found: Evidence) -> Finding:
    verdicts, said = _compared(found, "multi", "single")
    _, beside = _compared(found, "multi", "control")
    more = [
        f"at lambda {weight:g} {_compared(found, sweep_kind(weight), below)[1]}; "
        for weight in found.seeded
        for below in ("single", "control")
    ]
    return Finding(
        "K2",
        "the network trained with depth from video has the higher clean mIoU and the higher Q under each noise and each attack than the one "
        "trained on labels alone; held against the control, which sees the video in batch norm alone, the same gains are due to depth",
        together(verdicts),
        f"{said}; {beside}; {''.join(more)}mean and standard deviation over {found.seeds} seeds",
    )


def _k3(found: Evidence) -> Finding:
    outputs, gradients = (found.values("split", name_of("multi", 0), name) for name in ("outputs", "gradients"))
    verdict = NOT_TESTABLE
    if outputs and gradients:
        verdict = HELD if max(outputs) == 0 and max(gradients) <= ROUNDING else NOT_HELD
    said = (
        f"outputs differ by {max(outputs):g}, gradients by {max(gradients):.1e} of their size" if outputs else "not run"
    )
    return Finding(
        "K3",
        "lambda changes no output, and the gradient that reaches the encoder is lambda times that of depth plus 1 - lambda times that of segmentation",
        verdict,
        said,
    )


def _k4(found: Evidence) -> Finding:
    masked, gradients = (found.values("static", name_of("multi", 0), name) for name in ("masked", "gradient"))
    verdict = NOT_TESTABLE
    if masked and gradients:
        verdict = HELD if min(masked) == 1 and max(gradients) == 0 else NOT_HELD
    said = f"{100 * min(masked):g} % of the pixels masked, gradient {max(gradients):g}" if masked else "not run"
    return Finding(
        "K4", "where the camera stands still every pixel is masked, and the depth loss has no gradient", verdict, said
    )


def _k5(found: Evidence) -> Finding:
    values = found.gains("multi", "single", _mean_q(found, SEA))
    kept = {kind: found.by_seed(kind, _mean_q(found, SEA)) for kind in ("multi", "single")}
    left = {kind: found.by_seed(kind, _q_at(found, "PGD", 8.0)) for kind in ("multi", "single")}

    def pair(by_kind: Mapping[str, Iterable[float]]) -> str:
        return " and ".join(_figure(float(np.mean(list(v))) if v else math.nan) for v in by_kind.values())

    return Finding(
        "K5",
        "beyond the paper: what depth gains is still there under the ensemble SEA at 0.25 to 2 /255",
        exceeds(values),
        f"mean Q {pair(kept)} % (multi and single): {_gained(values)}; at an RMS of 8/255 PGD leaves a Q of {pair(left)} %",
    )
