"""Arnab et al. 2018 in words and figures: which network to prefer, from the records of the study, with the spread and the limits. No torch."""

import math
from itertools import pairwise

import numpy as np

from robustseg.report.figures import Line, Plot, Point, curves, scatter
from robustseg.results import findings as audits
from robustseg.studies.arnab2018 import (
    CRF,
    FEW,
    FRONTS,
    MULTI,
    SLACK,
    UNTARGETED,
    image_counts,
    images_of,
    kept,
    seeing,
)
from robustseg.studies.evidence import Evidence
from robustseg.studies.page import Figure, percent
from robustseg.studies.study import SEEDS

COLOURS = [f"rs-{kind}{i}" for i in range(6) for kind in "an"]
"""Classes of colours, neighbours far apart."""


def words(f: Evidence) -> list[str]:
    """A paragraph a question, each with its numbers, and the limits; questions that nothing was measured for are left out."""
    answers = (_most_robust, _accuracy, _capacity, _none_holds, _black_box, _multi_scale, _crf, _fronts)
    told = [text for answer in answers if (text := answer(f))]
    limits = (
        f"**Limits.** {f.study.protocol}; {image_counts(f)} a figure, so differences of a few points may be chance. Every figure is an upper bound: "
        "what the attacks that were tried left."
    )
    return [*told, limits] if told else []


def ranking(f: Evidence, attack: str) -> list[tuple[float, str]]:
    """Networks that see by the mean ratio over their seeds, the most robust first; those not measured are left out."""
    seen, listed = seeing(f), []
    for name, seeds in f.settings.groups.items():
        values = f.by_seed(name, lambda n: kept(f, n, attack))
        if values and any(n in seen for n in seeds):
            listed.append((sum(values) / len(values), name))
    return sorted(listed, key=lambda pair: -pair[0])


def spread(f: Evidence, attack: str) -> float:
    """Standard deviation of the ratio over seeds, pooled over the networks with enough of them; NaN without."""
    own = [f.by_seed(name, lambda n: kept(f, n, attack)) for name in f.settings.groups]
    known = [np.var(values, ddof=1) for values in own if len(values) >= SEEDS]
    return float(np.sqrt(np.mean(known))) if known else math.nan


def hardest(f: Evidence) -> tuple[str, str]:
    """The attack to rank by, as text and as spec: SEA at its smallest eps, where undefended networks still differ."""
    attacks = f.settings.attacks
    for eps in attacks.sea:
        if ranking(f, attacks.sea_spec(eps)):
            return f"SEA at {eps:g}/255 (3 x {attacks.sea_steps} steps)", attacks.sea_spec(eps)
    eps = attacks.iterative[0]
    return f"iterative FGSM at {eps:g}/255", UNTARGETED.format(eps)


def _most_robust(f: Evidence) -> str:
    title, spec = hardest(f)
    listed = ranking(f, spec)
    if len(listed) < 2:
        return ""
    best, name = listed[0]
    shares = ", ".join(f"{n} {percent(value)}" for value, n in listed)
    apart, seen = spread(f, spec), seeing(f)
    blind = [n for n in f.settings.groups if n not in seen and not math.isnan(f.miou(n))]
    text = f"**The most robust here: {name}.** Under {title} the networks keep, in % of their clean mIoU: {shares}. "
    text += f"Left out, since they see less than half as much as the best: {', '.join(blind)}. " if blind else ""
    if math.isnan(apart):
        return text + "None was trained three times, so how far apart two trainings of one network are is not known."
    # the difference of two trainings varies by the root of two more than one
    near = [n for value, n in listed[1:] if best - value < 2 * math.sqrt(2) * apart]
    text += f"Two trainings of one network differ by {percent(apart)} points (standard deviation over seeds); "
    return text + (
        f"not told apart from {name} by that: {', '.join(near)}."
        if near
        else "no other network comes within that of it."
    )


def _accuracy(f: Evidence) -> str:
    title, spec = hardest(f)
    order = [name for _, name in ranking(f, spec)]
    if len(order) < 2:
        return ""
    top, best = max(order, key=f.miou), max(order, key=lambda n: f.miou(n, spec, images=images_of(spec)))
    place = f"{order.index(top) + 1} of {len(order)}"
    return (
        f"**The most accurate: {top}**, {percent(f.miou(top))} % clean mIoU; by the share that it keeps it stands {place}. The most mIoU that "
        f"is left under {title}, accuracy and robustness together: {best}, {percent(f.miou(best, spec, images=images_of(spec)))} %."
    )


def _capacity(f: Evidence) -> str:
    _, spec = hardest(f)
    seen = seeing(f)
    known = [(n, value) for n in f.settings.widths if n in seen and not math.isnan(value := kept(f, n, spec))]
    if len(known) < 3:
        return ""
    steps = [b - a for (_, a), (_, b) in pairwise(known)]
    trend = "rises" if min(steps) > 0 else "falls" if max(steps) < 0 else "neither rises nor falls steadily"
    shares = ", ".join(f"{n} {percent(value)}" for n, value in known)
    return f"**Width.** From narrow to wide the share that is kept {trend}: {shares}."


def _none_holds(f: Evidence) -> str:
    for eps in reversed([e for e in f.settings.attacks.iterative if e >= 4]):
        for value, name in ranking(f, UNTARGETED.format(eps))[:1]:
            head = "No architecture is a defence" if value < 0.25 else "At a larger budget"
            text = f"**{head}.** Iterative FGSM at {eps:g}/255, not the strongest attack, leaves at most {percent(value)} % of the "
            return text + f"clean mIoU ({name})."
    return ""


def _black_box(f: Evidence) -> str:
    seen, spec = seeing(f), UNTARGETED.format(f.settings.attacks.transfer)
    names = [name for name in f.settings.groups if name in seen]
    pairs = [(kept(f, b, spec, a), a, b) for a in names for b in names if a != b]
    pairs = sorted(pair for pair in pairs if not math.isnan(pair[0]))
    if not pairs:
        return ""
    (low, a, b), (middle, *_), (high, *_) = pairs[0], pairs[len(pairs) // 2], pairs[-1]
    return (
        f"**An attacker who does not know the network** and attacks another one (iterative FGSM, {f.settings.attacks.transfer:g}/255) "
        f"leaves {percent(low)} ({b}, attacked through {a}) to {percent(high)} %, {percent(middle)} % in the middle."
    )


def _middle(f: Evidence) -> float:
    """The eps at which to speak of what is around a network."""
    eps = f.settings.attacks.around
    return eps[len(eps) // 2]


def _multi_scale(f: Evidence) -> str:
    eps, base = _middle(f), f.settings.base
    spec = UNTARGETED.format(eps)
    bare, branch, whole = kept(f, base, spec), kept(f, MULTI, spec, base), kept(f, MULTI, spec)
    if math.isnan(bare + branch + whole):
        return ""
    gain = "help" if whole - bare > FEW else "hardly help against an attacker who knows of them"
    return (
        f"**Several scales {gain}.** Iterative FGSM at {eps:g}/255 leaves {base} {percent(bare)} %; with max fusion over scales 0.5, 0.75 and 1 "
        f"{percent(branch)} % if made at scale 1 alone, {percent(whole)} % if made through all of them (clean mIoU {percent(f.miou(base))} "
        f"and {percent(f.miou(MULTI))} %)."
    )


def _crf(f: Evidence) -> str:
    eps, base = _middle(f), f.settings.base
    spec = UNTARGETED.format(eps)
    bare, own, through = kept(f, base, spec), kept(f, CRF, spec), kept(f, CRF, spec, base)
    if math.isnan(bare + own + through):
        return ""
    head = "A CRF only looks robust" if own > bare + SLACK and through < own else "A CRF"
    hints = [finding for finding in audits.suspicious(audits.read_findings(f.folder / "crf")) if finding.masking]
    said = f" The audit says of it: {hints[0].text}" if hints else ""
    return (
        f"**{head}.** It keeps {percent(own)} % where {base} keeps {percent(bare)} (iterative FGSM, {eps:g}/255); the same attack made on {base} "
        f"alone leaves it {percent(through)} %.{said}"
    )


def _fronts(f: Evidence) -> str:
    eps, attacks = _middle(f), f.settings.attacks
    bare, told, gains = kept(f, f.settings.base, attacks.pgd_spec(eps)), [], []
    for front in FRONTS:
        naive = kept(f, front, attacks.pgd_spec(eps), f.settings.base)
        aware = kept(f, front, attacks.pgd_spec(eps, front))
        if not math.isnan(bare + naive + aware):
            told.append(f"{front} {percent(naive)} and {percent(aware)}")
            gains.append(aware - bare)
    if not told:
        return ""
    head = "Input transformations are no defence" if max(gains) <= FEW else "Input transformations"
    return (
        f"**{head}.** PGD at {eps:g}/255 leaves {f.settings.base} {percent(bare)} %; unaware and aware of the transformation: "
        f"{', '.join(told)} %."
    )


def figures(f: Evidence) -> list[Figure]:
    """The paper's figures in our numbers: curves against eps, and robustness against accuracy."""
    attack, spec = hardest(f)
    return [
        Figure("IoU ratio against eps", curves(panels(f), x_label="eps, n/255")),
        Figure(f"Accuracy and robustness: {attack}", versus(f, spec)),
    ]


def panels(f: Evidence) -> list[Plot]:
    """One panel an attack: the mean ratio of each network over its seeds, with the smallest and the largest as whiskers."""
    made = []
    for family, by_eps in f.settings.attacks.families().items():
        lines = []
        for i, name in enumerate(f.settings.groups):
            points = [p for eps, spec in by_eps.items() if (p := _point(f, name, spec, eps))]
            if points:
                lines.append(Line(name, COLOURS[i % len(COLOURS)], "", i, points))
        if lines:
            made.append(Plot(family, lines, "IoU ratio, %", 1.0))
    return made


def versus(f: Evidence, spec: str) -> str:
    """IoU ratio against clean mIoU, one mark a network; the paper's figure 4."""
    lines = []
    for i, name in enumerate(f.settings.groups):
        clean = f.by_seed(name, f.miou)
        point = _point(f, name, spec, sum(clean) / len(clean)) if clean else None
        if point:
            lines.append(Line(name, COLOURS[i % len(COLOURS)], "", i, [point]))
    return scatter(Plot("", lines, "IoU ratio, %", math.nan), x_label="clean mIoU, %")


def _point(f: Evidence, name: str, spec: str, x: float) -> Point | None:
    values = f.by_seed(name, lambda n: kept(f, n, spec))
    if not values:
        return None
    mean = sum(values) / len(values)
    low, high = (min(values), max(values)) if len(values) > 1 else (math.nan, math.nan)
    text = f"{name}\n{spec.partition(', class_pixels')[0]}\nIoU ratio {percent(mean)} %"
    return Point(x, mean, low, high, text + (f", {len(values)} seeds" if len(values) > 1 else ""))
