"""Arnab et al. 2018 in tables: architectures, attack by attack; widths; scales; CRF; black box; input transformations. Without torch."""

from collections.abc import Callable

from robustseg.results import findings as audits
from robustseg.studies.arnab2018 import (
    BRANCHES,
    CRF,
    FRONTS,
    ITERATIVE,
    MULTI,
    RANDOM,
    SINGLE,
    UNTARGETED,
    image_counts,
    kept,
)
from robustseg.studies.evidence import Evidence
from robustseg.studies.page import Beside, Table, percent


def tables(f: Evidence) -> list[Table]:
    """Architectures, attack by attack; widths; scales; CRF; black box; input transformations."""
    return [*_architectures(f), *_widths(f), *_scales(f), _crf(f), _black_box(f), _fronts(f)]


def _cell(f: Evidence, name: str, value: Callable[[str], float]) -> Beside:
    return Beside(tuple(100 * v for v in f.by_seed(name, value)))


def _under(f: Evidence, spec: str) -> Callable[[str], float]:
    return lambda name: kept(f, name, spec)


def _architectures(f: Evidence) -> list[Table]:
    made = []
    for family, by_eps in f.settings.attacks.families().items():
        rows = [
            (name, _cell(f, name, f.miou), *(_cell(f, name, _under(f, spec)) for spec in by_eps.values()))
            for name in f.settings.groups
        ]
        columns = ("network", "clean mIoU", *(f"{eps:g}/255" for eps in by_eps))
        made.append(Table(f"{family}: IoU ratio in %", columns, rows, image_counts(f, by_eps.values())))
    return made


def _widths(f: Evidence) -> list[Table]:
    if len(f.settings.widths) < 2:
        return []
    families = [(name, by_eps) for name, by_eps in f.settings.attacks.families().items() if name not in SINGLE]
    picked = [(f"{name} {eps:g}/255", spec) for name, by_eps in families for eps, spec in by_eps.items()]
    rows = [
        (name, percent(f.miou(name)), *(_cell(f, name, _under(f, spec)) for _, spec in picked))
        for name in f.settings.widths
    ]
    columns = ("width", "clean mIoU", *(title for title, _ in picked))
    return [Table("One architecture, narrow to wide: IoU ratio in %", columns, rows)]


def _scales(f: Evidence) -> list[Table]:
    base = f.settings.base
    roles = {**{name: name.removeprefix("scale ") for name in BRANCHES}, base: "1", MULTI: "all, max"}
    note = f"Rows: eps, and the scale that is attacked; columns: the scale that is measured. {base} throughout."
    made = []
    for family, template in ITERATIVE.items():
        rows = [
            (f"{eps:g}/255, {roles[a]}", *(percent(kept(f, b, template.format(eps), a)) for b in roles))
            for eps in f.settings.attacks.around
            for a in roles
        ]
        columns = ("attacked", *(f"at {shown}" for shown in roles.values()))
        made.append(Table(f"Scales, {family}: IoU ratio in %", columns, rows, note))
    return made


def _crf(f: Evidence) -> Table:
    base, rows = f.settings.base, []
    for family, template in ITERATIVE.items():
        for eps in f.settings.attacks.around:
            pairs = ((base, base), (CRF, CRF), (CRF, base))
            rows.append((f"{family} {eps:g}/255", *(percent(kept(f, a, template.format(eps), b)) for a, b in pairs)))
    columns = ("attack", "network, itself attacked", "CRF, itself attacked", "CRF, attacked through its network")
    audited = audits.read_findings(f.folder / "crf")
    said = [f"{found.check}: {found.text}" for found in audits.suspicious(audited)]
    note = f"Audit of the CRF: {' '.join(said)}" if said else ""
    note = note or ("The audit of the CRF found nothing." if audited else "")
    return Table(f"CRF around {base}: IoU ratio in %", columns, rows, note)


def _black_box(f: Evidence) -> Table:
    names, eps = tuple(f.settings.groups), f.settings.attacks.transfer
    rows = [(a, *(percent(kept(f, b, UNTARGETED.format(eps), a)) for b in names)) for a in names]
    title = f"Black box, iterative FGSM {eps:g}/255: IoU ratio in %"
    return Table(title, ("attacked", *names), rows, "Rows: the network that was attacked; columns: the one measured.")


def _fronts(f: Evidence) -> Table:
    base, attacks = f.settings.base, f.settings.attacks
    bare = [percent(kept(f, base, attacks.pgd_spec(eps))) for eps in attacks.around]
    rows = [("none", percent(f.miou(base)), *(cell for value in bare for cell in ("", value)))]
    for front in FRONTS:
        cells = []
        for eps in attacks.around:
            cells.append(percent(kept(f, front, attacks.pgd_spec(eps), base)))
            cells.append(percent(kept(f, front, attacks.pgd_spec(eps, front))))
        rows.append((front, percent(f.miou(front)), *cells))
    columns = [f"{how} {eps:g}/255" for eps in attacks.around for how in ("unaware", "aware")]
    note = (
        f"PGD in {attacks.steps} steps. Unaware: made on {base} alone. Aware: made through the transformation, or through its surrogate gradient where it "
        f"rounds, with the mean gradient over {attacks.draws} EOT samples where it is random ({', '.join(RANDOM)})."
    )
    title = f"Input transformations in front of {base}: IoU ratio in %"
    return Table(title, ("transformation", "clean mIoU", *columns), rows, note)
