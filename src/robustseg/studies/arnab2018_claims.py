"""Arnab et al. 2018 from records: tables, and the claims A1 to A7. Pure functions, without torch.

The paper's own values are not to be had, so nothing stands beside ours; its claims are trends.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from robustseg.results import findings as audits
from robustseg.studies.arnab2018_evidence import (
    BRANCHES,
    CRF,
    FRONTS,
    ITERATIVE,
    MULTI,
    RANDOM,
    SINGLE,
    TARGETED,
    UNTARGETED,
    Evidence,
    first_seeds,
    percent,
)
from robustseg.studies.study import HELD, NOT_HELD, NOT_TESTABLE, Beside, Cell, Finding, Table, together

SLACK = 0.02
"""What still counts as equal: two points of IoU ratio."""
FEW = 0.05
"""What the claims call a few points."""
MORE = 1e-6
"""By so much is what is higher above what is not: of equals none is."""


def tables(found: Evidence) -> list[Table]:
    """Architectures, attack by attack; widths; scales; CRF; black box; input transformations."""
    return [*architectures(found), *_widths(found), *_scales(found), *_crf(found), black_box(found), _fronts(found)]


def _over_seeds(found: Evidence, name: str, attack: str) -> Beside:
    values = [100 * found.ratio(n, attack) for n in found.seeds(name)]
    return Beside(tuple(value for value in values if not math.isnan(value)))


def architectures(found: Evidence) -> list[Table]:
    """One table an attack: every network against eps."""
    made = []
    for family, by_eps in found.attacks.families().items():
        rows: list[tuple[Cell, ...]] = []
        for name in first_seeds(found.names):
            clean = Beside(tuple(100 * c for n in found.seeds(name) if not math.isnan(c := found.clean(n))))
            rows.append((name, clean, *(_over_seeds(found, name, spec) for spec in by_eps.values())))
        columns = ("network", "clean mIoU", *(f"{eps:g}/255" for eps in by_eps))
        made.append(Table(f"{family}: IoU ratio in %", columns, tuple(rows), found.images(by_eps.values())))
    return made


def _widths(found: Evidence) -> list[Table]:
    if len(found.widths) < 2:
        return []
    families = [(f, by_eps) for f, by_eps in found.attacks.families().items() if f not in SINGLE]
    picked = [(f"{family} {eps:g}/255", spec) for family, by_eps in families for eps, spec in by_eps.items()]
    rows: list[tuple[Cell, ...]] = [
        (name, percent(found.clean(name)), *(_over_seeds(found, name, spec) for _, spec in picked))
        for name in found.widths
    ]
    columns = ("width", "clean mIoU", *(title for title, _ in picked))
    return [Table("One architecture, narrow to wide: IoU ratio in %", columns, tuple(rows))]


def _scales(found: Evidence) -> list[Table]:
    roles = {**{name: name.removeprefix("scale ") for name in BRANCHES}, found.base: "1", MULTI: "all, max"}
    made = []
    for family, template in ITERATIVE.items():
        rows = [
            (f"{eps:g}/255, {roles[a]}", *(percent(found.ratio(b, template.format(eps), a)) for b in roles))
            for eps in found.attacks.around
            for a in roles
        ]
        note = (
            f"Rows: eps, and the scale that is attacked; columns: the scale that is measured. {found.base} throughout."
        )
        columns = ("attacked", *(f"at {shown}" for shown in roles.values()))
        made.append(Table(f"Scales, {family}: IoU ratio in %", columns, tuple(rows), note))
    return made


def _crf(found: Evidence) -> list[Table]:
    rows = []
    for family, template in ITERATIVE.items():
        for eps in found.attacks.around:
            spec = template.format(eps)
            pairs = ((found.base, found.base), (CRF, CRF), (CRF, found.base))
            rows.append((f"{family} {eps:g}/255", *(percent(found.ratio(a, spec, b)) for a, b in pairs)))
    columns = ("attack", "network, itself attacked", "CRF, itself attacked", "CRF, attacked through its network")
    said = [f"{f.check}: {f.text}" for f in audits.suspicious(found.audited)]
    note = f"Audit of the CRF: {' '.join(said)}" if said else ""
    note = note or ("The audit of the CRF found nothing." if found.audited else "")
    return [Table(f"CRF around {found.base}: IoU ratio in %", columns, tuple(rows), note)]


def black_box(found: Evidence) -> Table:
    """Attacks on each network (rows), measured on each (columns)."""
    names, spec = first_seeds(found.names), UNTARGETED.format(found.attacks.transfer)
    rows = tuple((a, *(percent(found.ratio(b, spec, a)) for b in names)) for a in names)
    title = f"Black box, iterative FGSM {found.attacks.transfer:g}/255: IoU ratio in %"
    return Table(title, ("attacked", *names), rows, "Rows: the network that was attacked; columns: the one measured.")


def _fronts(found: Evidence) -> Table:
    base, attacks = found.base, found.attacks
    bare = [percent(found.ratio(base, attacks.pgd_spec(eps))) for eps in attacks.around]
    rows = [("none", percent(found.clean(base)), *(cell for value in bare for cell in ("", value)))]
    for front in FRONTS:
        cells = []
        for eps in attacks.around:
            cells.append(percent(found.ratio(front, attacks.pgd_spec(eps), base)))
            cells.append(percent(found.ratio(front, attacks.pgd_spec(eps, front))))
        rows.append((front, percent(found.clean(front)), *cells))
    columns = [f"{how} {eps:g}/255" for eps in attacks.around for how in ("unaware", "aware")]
    note = (
        f"PGD in {attacks.steps} steps. Unaware: made on {base} alone. Aware: made through the transformation, or through its stand-in where it rounds, "
        f"with the mean gradient over {attacks.draws} draws where it is random ({', '.join(RANDOM)})."
    )
    title = f"Input transformations in front of {base}: IoU ratio in %"
    return Table(title, ("transformation", "clean mIoU", *columns), tuple(rows), note)


def findings(found: Evidence) -> list[Finding]:
    """A1 to A7: what a reproduction must show."""
    return [_a1(found), _a2(found), _a3(found), _a4(found), _a5(found), _a6(found), _a7(found)]


class Case(NamedTuple):
    """One instance of a claim: by how much it is met (below 0: it is not), and how it reads."""

    margin: float
    text: str


def _judged(cases: Sequence[Case]) -> str:
    """Held where every case that was measured is."""
    known = [case for case in cases if not math.isnan(case.margin)]
    if not known:
        return NOT_TESTABLE
    return HELD if all(case.margin >= 0 for case in known) else NOT_HELD


def _told(cases: Sequence[Case], most: int = 6) -> str:
    known = [case for case in cases if not math.isnan(case.margin)]
    missed = sorted((case for case in known if case.margin < 0), key=lambda case: case.margin)
    text = f"{len(known) - len(missed)} of {len(known)} cases"
    if missed:
        text += f"; not: {', '.join(case.text for case in missed[:most])}"
    elif known:
        text += f"; nearest: {min(known, key=lambda case: case.margin).text}"
    return text + (f" and {len(missed) - most} more" if len(missed) > most else "")


def _finding(claim: str, statement: str, cases: Sequence[Case]) -> Finding:
    return Finding(claim, statement, _judged(cases), _told(cases))


PLAIN = "plain networks (one scale, no CRF, at least half of the best clean mIoU)"


def _plain(found: Evidence) -> list[str]:
    return [name for name in found.seeing() if name not in found.several]


def _a1(f: Evidence) -> Finding:
    cases = []
    for name in f.names:
        for family, template in ITERATIVE.items():
            curve = {eps: f.ratio(name, template.format(eps)) for eps in f.attacks.iterative}
            for (low, before), (high, after) in zip(list(curve.items())[:-1], list(curve.items())[1:], strict=True):
                text = f"{name}, {family} {low:g} to {high:g}/255: {percent(before)} to {percent(after)} %"
                cases.append(Case(before + SLACK - after, text))
            cases += [
                Case(min(r, 1 + SLACK - r), f"{name}, {family} {eps:g}/255: {percent(r)} %") for eps, r in curve.items()
            ]
    statement = "the IoU ratio lies in [0, 1.02], and under the iterative attacks it nowhere rises by more than two points with eps"
    return _finding("A1", statement, cases)


def _a2(f: Evidence) -> Finding:
    cases = []
    for name in _plain(f):
        for eps in (e for e in f.attacks.iterative if e >= 4 and e in f.attacks.single):
            many, one = f.ratio(name, UNTARGETED.format(eps)), f.ratio(name, SINGLE["FGSM"].format(eps))
            cases.append(Case(one - many, f"{name} {eps:g}/255: {percent(many)} against {percent(one)} %"))
    return _finding("A2", f"from 4/255 on, iterative FGSM leaves {PLAIN} no more than FGSM does, at equal eps", cases)


def _a3(f: Evidence) -> Finding:
    cases = []
    for name in _plain(f):
        for eps in (e for e in f.attacks.iterative if e >= 8):
            left = f.ratio(name, TARGETED.format(eps))
            cases.append(Case(0.25 - left, f"{name} {eps:g}/255: {percent(left)} %"))
    return _finding("A3", f"from 8/255 on, iterative FGSM ll leaves {PLAIN} less than a quarter", cases)


def _a4(f: Evidence) -> Finding:
    parts: dict[str, list[Case]] = {"branch": [], "shrinks": [], "whole": []}
    for family, template in ITERATIVE.items():
        for eps in f.attacks.around:
            spec = template.format(eps)
            bare = f.ratio(f.base, spec)
            branch, whole = f.ratio(MULTI, spec, f.base) - bare, f.ratio(MULTI, spec) - bare
            text = f"{family} {eps:g}/255: ahead by {percent(branch)}, then {percent(whole)} points"
            for part, margin in (
                ("branch", branch - MORE),
                ("shrinks", branch - whole - MORE),
                ("whole", whole + SLACK),
            ):
                parts[part].append(Case(margin, text))
    statement = (
        "multi-scale max fusion keeps a higher ratio than the same weights at 100 % only, under an attack on the 100 % branch; through the "
        "whole graph the gap shrinks, and stays at least 0 (within two points)"
    )
    said = "; ".join(f"{part} {_judged(cases)} in {_told(cases)}" for part, cases in parts.items())
    return Finding("A4", statement, together([_judged(cases) for cases in parts.values()]), said)


def _a5(f: Evidence) -> Finding:
    cases, scales = [], (*BRANCHES, f.base)
    for family, template in ITERATIVE.items():
        for eps in f.attacks.around:
            for attacked in scales:
                row = {b: f.ratio(b, template.format(eps), attacked) for b in scales}
                own, others = row[attacked], [value for b, value in row.items() if b != attacked]
                least = min(others) if not any(map(math.isnan, others)) else math.nan
                where = "scale 1" if attacked == f.base else attacked
                text = f"{family} {eps:g}/255 on {where}: {percent(own)} there, {percent(least)} % at another"
                cases.append(Case(least - own, text))
    statement = "an attack made at one scale leaves least at that scale (0.5, 0.75, 1)"
    return _finding("A5", statement, cases)


def _a6(f: Evidence) -> Finding:
    near, below = [], []
    for front in FRONTS:
        for eps in f.attacks.around:
            bare, naive = (f.ratio(who, f.attacks.pgd_spec(eps), f.base) for who in (f.base, front))
            aware = f.ratio(front, f.attacks.pgd_spec(eps, front))
            text = f"{front} {eps:g}/255: bare {percent(bare)}, unaware {percent(naive)}, aware {percent(aware)} %"
            near.append(Case(FEW - abs(aware - bare), text))
            below.append(Case(naive - aware - SLACK, text))
    statement = (
        "an attack that knows the input transformation leaves within 5 points of what it leaves the bare network, and clearly (2 points) "
        "less than one that does not"
    )
    verdicts = [_judged(near), _judged(below)]
    return Finding("A6", statement, together(verdicts), f"near {_told(near)}; below {_told(below)}")


def _a7(f: Evidence) -> Finding:
    parts: dict[str, list[Case]] = {"untargeted": [], "targeted": [], "transfer": []}
    for eps in f.attacks.around:
        away, towards = UNTARGETED.format(eps), TARGETED.format(eps)
        bare, own, through = f.ratio(f.base, away), f.ratio(CRF, away), f.ratio(CRF, away, f.base)
        bare_ll, own_ll = f.ratio(f.base, towards), f.ratio(CRF, towards)
        parts["untargeted"].append(Case(own - bare - MORE, f"{eps:g}/255: CRF {percent(own)}, bare {percent(bare)} %"))
        text = f"{eps:g}/255: CRF {percent(own_ll)}, bare {percent(bare_ll)} %"
        parts["targeted"].append(Case(FEW - abs(own_ll - bare_ll), text))
        text = f"{eps:g}/255: through its network {percent(through)}, itself {percent(own)} %"
        parts["transfer"].append(Case(own - through - MORE, text))
    verdicts = [_judged(cases) for cases in parts.values()]
    said = "; ".join(f"{part} {_judged(cases)} in {_told(cases)}" for part, cases in parts.items())
    hints = sorted({finding.check for finding in f.audited if finding.masking})
    verdicts.append((HELD if hints else NOT_HELD) if f.audited else NOT_TESTABLE)
    said += f"; the audit says masking: {', '.join(hints) or 'no'}" if f.audited else "; not audited"
    statement = (
        "the CRF keeps a higher ratio than its network under the untargeted attack, about the same (5 points) under the targeted one, falls "
        "further by transfer from its network than by the untargeted attack on itself, and the audit says that it masks gradients"
    )
    return Finding("A7", statement, together(verdicts), said)
