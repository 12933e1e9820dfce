"""Which network should I prefer? Answered from the records of the study of Arnab et al. 2018, with the spread and the limits. No torch."""

import math
from itertools import pairwise

from robustseg.results import findings as audits
from robustseg.studies.arnab2018_claims import FEW, SLACK
from robustseg.studies.arnab2018_evidence import CRF, FRONTS, MULTI, UNTARGETED, Evidence, first_seeds, percent


def preference(found: Evidence) -> list[str]:
    """A paragraph a question, each with its numbers; questions that nothing was measured for are left out."""
    answers = (_most_robust, _accuracy, _capacity, _none_holds, _black_box, _multi_scale, _crf, _fronts)
    return [text for answer in answers if (text := answer(found))]


def ranking(found: Evidence, attack: str) -> list[tuple[float, str]]:
    """Networks that see by the mean ratio over their seeds, the most robust first; those not measured are left out."""
    listed = []
    for name in first_seeds(found.seeing()):
        values = [value for n in found.seeds(name) if not math.isnan(value := found.ratio(n, attack))]
        if values:
            listed.append((sum(values) / len(values), name))
    return sorted(listed, key=lambda pair: -pair[0])


def hardest(found: Evidence) -> tuple[str, str]:
    """The attack to rank by, as text and as spec: SEA at its smallest eps, where undefended networks still differ."""
    attacks = found.attacks
    for eps in attacks.sea:
        if ranking(found, attacks.sea_spec(eps)):
            return f"SEA at {eps:g}/255 (3 x {attacks.sea_steps} steps)", attacks.sea_spec(eps)
    eps = attacks.iterative[0]
    return f"iterative FGSM at {eps:g}/255", UNTARGETED.format(eps)


def _most_robust(found: Evidence) -> str:
    title, spec = hardest(found)
    listed = ranking(found, spec)
    if len(listed) < 2:
        return ""
    best, name = listed[0]
    shares = ", ".join(f"{n} {percent(value)}" for value, n in listed)
    spread, seeing = found.spread(spec), found.seeing()
    blind = [n for n in first_seeds(found.names) if n not in seeing and not math.isnan(found.clean(n))]
    text = f"**The most robust here: {name}.** Under {title} the networks keep, in % of their clean mIoU: {shares}. "
    text += f"Left out, since they see less than half as much as the best: {', '.join(blind)}. " if blind else ""
    if math.isnan(spread):
        return text + "None was trained three times, so how far apart two trainings of one network are is not known."
    # the difference of two trainings varies by the root of two more than one
    near = [n for value, n in listed[1:] if best - value < 2 * math.sqrt(2) * spread]
    text += f"Two trainings of one network differ by {percent(spread)} points (standard deviation over seeds); "
    return text + (
        f"not told apart from {name} by that: {', '.join(near)}."
        if near
        else "no other network comes within that of it."
    )


def _accuracy(found: Evidence) -> str:
    title, spec = hardest(found)
    order = [name for _, name in ranking(found, spec)]
    if len(order) < 2:
        return ""
    top, best = max(order, key=found.clean), max(order, key=lambda n: found.left(n, spec))
    place = f"{order.index(top) + 1} of {len(order)}"
    return (
        f"**The most accurate: {top}**, {percent(found.clean(top))} % clean mIoU; by the share that it keeps it stands {place}. The most mIoU that "
        f"is left under {title}, accuracy and robustness together: {best}, {percent(found.left(best, spec))} %."
    )


def _capacity(found: Evidence) -> str:
    _, spec = hardest(found)
    known = [(n, value) for n in found.widths if n in found.seeing() and not math.isnan(value := found.ratio(n, spec))]
    if len(known) < 3:
        return ""
    steps = [b - a for (_, a), (_, b) in pairwise(known)]
    trend = "rises" if min(steps) > 0 else "falls" if max(steps) < 0 else "neither rises nor falls steadily"
    shares = ", ".join(f"{n} {percent(value)}" for n, value in known)
    return f"**Width.** From narrow to wide the share that is kept {trend}: {shares}."


def _none_holds(found: Evidence) -> str:
    for eps in reversed([e for e in found.attacks.iterative if e >= 4]):
        for value, name in ranking(found, UNTARGETED.format(eps))[:1]:
            head = "No architecture is a defence" if value < 0.25 else "At a larger budget"
            text = f"**{head}.** Iterative FGSM at {eps:g}/255, not the strongest attack, leaves at most {percent(value)} % of the "
            return text + f"clean mIoU ({name})."
    return ""


def _black_box(found: Evidence) -> str:
    names, spec = first_seeds(found.seeing()), UNTARGETED.format(found.attacks.transfer)
    pairs = [(found.ratio(b, spec, a), a, b) for a in names for b in names if a != b]
    pairs = sorted(pair for pair in pairs if not math.isnan(pair[0]))
    if not pairs:
        return ""
    (low, a, b), (middle, *_), (high, *_) = pairs[0], pairs[len(pairs) // 2], pairs[-1]
    return (
        f"**An attacker who does not know the network** and attacks another one (iterative FGSM, {found.attacks.transfer:g}/255) "
        f"leaves {percent(low)} ({b}, attacked through {a}) to {percent(high)} %, {percent(middle)} % in the middle."
    )


def _middle(found: Evidence) -> float:
    """The eps at which to speak of what is around a network."""
    eps = found.attacks.around
    return eps[len(eps) // 2]


def _multi_scale(found: Evidence) -> str:
    eps, base = _middle(found), found.base
    spec = UNTARGETED.format(eps)
    bare, branch, whole = found.ratio(base, spec), found.ratio(MULTI, spec, base), found.ratio(MULTI, spec)
    if math.isnan(bare + branch + whole):
        return ""
    gain = "help" if whole - bare > FEW else "hardly help against an attacker who knows of them"
    return (
        f"**Several scales {gain}.** Iterative FGSM at {eps:g}/255 leaves {base} {percent(bare)} %; with max fusion over scales 0.5, 0.75 and 1 "
        f"{percent(branch)} % if made at scale 1 alone, {percent(whole)} % if made through all of them (clean mIoU {percent(found.clean(base))} "
        f"and {percent(found.clean(MULTI))} %)."
    )


def _crf(found: Evidence) -> str:
    eps, base = _middle(found), found.base
    spec = UNTARGETED.format(eps)
    bare, own, through = found.ratio(base, spec), found.ratio(CRF, spec), found.ratio(CRF, spec, base)
    if math.isnan(bare + own + through):
        return ""
    head = "A CRF only looks robust" if own > bare + SLACK and through < own else "A CRF"
    hints = [finding for finding in audits.suspicious(found.audited) if finding.masking]
    said = f" The audit says of it: {hints[0].text}" if hints else ""
    return (
        f"**{head}.** It keeps {percent(own)} % where {base} keeps {percent(bare)} (iterative FGSM, {eps:g}/255); the same attack made on {base} "
        f"alone leaves it {percent(through)} %.{said}"
    )


def _fronts(found: Evidence) -> str:
    eps, attacks = _middle(found), found.attacks
    bare, told, gains = found.ratio(found.base, attacks.pgd_spec(eps)), [], []
    for front in FRONTS:
        naive = found.ratio(front, attacks.pgd_spec(eps), found.base)
        aware = found.ratio(front, attacks.pgd_spec(eps, front))
        if not math.isnan(bare + naive + aware):
            told.append(f"{front} {percent(naive)} and {percent(aware)}")
            gains.append(aware - bare)
    if not told:
        return ""
    head = "Input transformations are no defence" if max(gains) <= FEW else "Input transformations"
    return (
        f"**{head}.** PGD at {eps:g}/255 leaves {found.base} {percent(bare)} %; unaware and aware of the transformation: "
        f"{', '.join(told)} %."
    )


def words(found: Evidence, protocol: str) -> list[str]:
    """The answers, and what they do not say; nothing where nothing was measured."""
    answers = preference(found)
    limits = (
        f"**Limits.** {protocol}; {found.images()} a figure, so differences of a few points may be chance. Every figure is an upper bound: what "
        "the attacks that were tried left."
    )
    return [*answers, limits] if answers else []
