"""Sandoval-Segura 2022 from records and measures: three tables, and the claims S1 to S4.

Pure functions, without torch. The paper's data, settings and figures are not to be had (arXiv 2204.01099; its abstract is), so
the protocol is ours throughout and nothing stands beside our figures.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from robustseg.results import metrics
from robustseg.results.record import Record
from robustseg.studies.legacy import (
    HELD,
    NOT_HELD,
    NOT_TESTABLE,
    UNDECIDED,
    Finding,
    Measure,
    Table,
    exceeds,
    together,
)

ROLES = {"standard": "standard", "half": "50/50", "adversarial": "adversarial"}
"""The networks of the study: trained on clean images, on a half and on all of them attacked."""
START, ORIGINAL = "start", "original"
"""What stands beside the networks' paintings: the hole as it started, and what was there."""
LEVEL = 0.05
"""Of the one-sided tests over images."""


@dataclass(frozen=True)
class Evidence:
    """Everything that was measured, by the network's role.

    Args:
        records: of the reported images, by role and perturbation spec.
        measures: of this run's settings. weak, strong: the perturbation specs.
    """

    records: dict[tuple[str, str], Record]
    measures: tuple[Measure, ...]
    weak: str
    strong: str
    roles: tuple[str, ...] = field(default=tuple(ROLES))

    def miou(self, role: str, perturbation: str) -> float:
        """mIoU in %, NaN where it was not measured."""
        record = self.records.get((role, perturbation))
        return 100 * metrics.miou(record.counts) if record else math.nan

    def of(self, kind: str, who: str) -> list[Measure]:
        """The measures of a kind, by image."""
        return sorted((m for m in self.measures if (m.kind, m.who) == (kind, who)), key=lambda m: m.image)

    def mean(self, kind: str, who: str, name: str) -> float:
        """Over images, those without a value left out; NaN without any."""
        values = [m.values.get(name, math.nan) for m in self.of(kind, who)]
        known = [v for v in values if math.isfinite(v)]
        return float(np.mean(known)) if known else math.nan

    def agreement(self, kind: str, who: str) -> float:
        """mIoU in % of the independent network's prediction to the label maps, pooled over images."""
        counts = [m.counts for m in self.of(kind, who) if m.counts]
        return 100 * metrics.miou(sum(counts[1:], counts[0])) if counts else math.nan

    def apart(self, kind: str, value: Callable[[Measure], float], *, above: str, below: str) -> list[float]:
        """Image by image, the value of one role less that of another, over the images that both have."""
        first, second = ({m.image: value(m) for m in self.of(kind, who)} for who in (above, below))
        return [first[image] - second[image] for image in first if image in second]


def p_value(differences: Sequence[float]) -> float:
    """The one-sided sign test: how likely as many are above 0 where each is above or below with equal chance; NaN without any."""
    signs = [d > 0 for d in differences if d != 0 and not math.isnan(d)]
    if not signs:
        return math.nan
    return float(sum(math.comb(len(signs), k) for k in range(sum(signs), len(signs) + 1)) / 2 ** len(signs))


def larger(differences: Sequence[float]) -> str:
    """The verdict on "larger, image by image": held or not where a sign test decides it, else undecided."""
    above, below = p_value(differences), p_value([-d for d in differences])
    if math.isnan(above):
        return NOT_TESTABLE
    return HELD if above <= LEVEL else NOT_HELD if below <= LEVEL else UNDECIDED


def tables(found: Evidence) -> list[Table]:
    """Robustness, inpainting, generation, gradients."""
    return [_robustness(found), _inpainting(found), _generation(found), _gradients(found)]


def _figure(value: float, digits: int = 1) -> str:
    return "not run" if math.isnan(value) else f"{value:.{digits}f}"


def _robustness(found: Evidence) -> Table:
    rows = []
    for role in found.roles:
        figures = [found.miou(role, spec) for spec in ("clean", found.weak, found.strong)]
        strong = found.records.get((role, found.strong))
        alive = str(int((metrics.class_iou(strong.counts) > 0.1).sum())) if strong else "not run"
        rows.append((ROLES[role], *map(_figure, figures), alive))
    columns = ("training", "clean", f"`{found.weak}`", f"`{found.strong}`", "classes over 10 % IoU there")
    return Table("mIoU in %", columns, tuple(rows), "One seed each.")


def _inpainting(found: Evidence) -> Table:
    rows = []
    names = {**ROLES, START: "none: the hole as it started", ORIGINAL: "none: what was there"}
    for who in (*found.roles, START, ORIGINAL):
        own = [found.mean("inpaint", who, name) for name in ("loss", "seen", "ssim", "psnr", "variation")]
        digits = (2, 2, 3, 1, 2)
        cells = [_figure(value, places) for value, places in zip(own, digits, strict=True)]
        rows.append((names[who], _figure(found.agreement("inpaint", who)), *cells))
    note = (
        "Agreement: mIoU in % of the independent network's prediction to the label map, in the hole, over all images together; the "
        "rest are means over images. Loss: cross-entropy to the label map. Seen: the share of the hole that the network itself labels as "
        "asked. Variation: total variation over that of what was there."
    )
    columns = ("training", "agreement", "loss", "seen", "SSIM", "PSNR", "variation")
    return Table(f"Inpainting, {len(found.of('inpaint', found.roles[0]))} holes", columns, tuple(rows), note)


def _generation(found: Evidence) -> Table:
    rows = []
    for who in (*found.roles, START, ORIGINAL):
        name = {**ROLES, START: "none: the start", ORIGINAL: "none: the real image"}[who]
        own = [_figure(found.mean("generate", who, value), 2) for value in ("loss", "seen", "variation")]
        rows.append((name, _figure(found.agreement("generate", who)), *own))
    columns = ("training", "agreement", "loss", "seen", "variation")
    return Table(f"Generation, {len(found.of('generate', found.roles[0]))} label maps", columns, tuple(rows))


def _gradients(found: Evidence) -> Table:
    names = ("plain share", "smooth share", "plain edges", "smooth edges")
    rows = [(ROLES[r], *(_figure(found.mean("gradients", r, name), 3) for name in names)) for r in found.roles]
    note = (
        "Share: of the energy of the input-gradient map above 1/4 cycle a pixel (white noise: 0.80). Edges: correlation of the "
        "map's size with the image's edges. Smooth: mean over 16 noisy copies. The gradient of the mean log-probability of the labels."
    )
    columns = ("training", "high share", "high share, smooth", "edges", "edges, smooth")
    return Table(f"Input gradients, {len(found.of('gradients', found.roles[0]))} images", columns, tuple(rows), note)


def findings(found: Evidence) -> list[Finding]:
    """S1 to S4, see `shared` of the digest: what a reproduction must show."""
    return [_s1(found), _s2(found), _s3(found), _s4(found)]


def _s1(found: Evidence) -> Finding:
    figures = {
        role: [found.miou(role, spec) for spec in ("clean", found.weak, found.strong)]
        for role in ("standard", "adversarial")
    }
    standard, adversarial = figures["standard"], figures["adversarial"]
    parts = [standard[0] - adversarial[0], adversarial[1] - standard[1], adversarial[2] - standard[2]]
    said = ", ".join(f"{role} {' / '.join(map(_figure, row))}" for role, row in figures.items())
    return Finding(
        "S1",
        "the adversarially trained network has the lower clean mIoU and the higher one under the attack of its training, and under a strong one",
        together([exceeds([part], seeds=1) for part in parts]),
        f"mIoU % clean / weak / strong: {said} (one seed each)",
    )


def _accuracy(measure: Measure) -> float:
    return metrics.pixel_accuracy(measure.counts) if measure.counts else math.nan


def _s2(found: Evidence) -> Finding:
    robust, plain = "adversarial", "standard"
    parts = {
        "agreement": found.apart("inpaint", _accuracy, above=robust, below=plain),
        "SSIM": found.apart("inpaint", lambda m: m.values["ssim"], above=robust, below=plain),
        "standard's loss lower": found.apart("inpaint", lambda m: m.values["loss"], above=robust, below=plain),
        "standard's variation higher": found.apart(
            "inpaint", lambda m: m.values["variation"], above=plain, below=robust
        ),
    }
    verdicts = {name: larger(values) for name, values in parts.items()}
    said = "; ".join(
        f"{name} {verdicts[name]} ({sum(d > 0 for d in values)} of {len(values)} images)"
        for name, values in parts.items()
    )
    miou = " and ".join(f"{found.agreement('inpaint', who):.1f}" for who in (robust, plain))
    ssim = " and ".join(f"{found.mean('inpaint', who, 'ssim'):.3f}" for who in (robust, plain))
    return Finding(
        "S2",
        "from the same hole, target, start and steps an independent network agrees more with the adversarial network's painting, its SSIM is "
        "higher, and the standard network reaches the lower loss with the rougher image",
        together(list(verdicts.values())),
        f"{said}; mIoU {miou} %, SSIM {ssim} (adversarial and standard)",
    )


def _s3(found: Evidence) -> Finding:
    apart = found.apart("gradients", lambda m: m.values["plain share"], above="standard", below="adversarial")
    means = " and ".join(f"{found.mean('gradients', who, 'plain share'):.3f}" for who in ("adversarial", "standard"))
    return Finding(
        "S3",
        "input-gradient maps of the adversarially trained network have the lower share of high-frequency energy",
        larger(apart),
        f"{means} (adversarial and standard), lower on {sum(d > 0 for d in apart)} of {len(apart)} images, p = {p_value(apart):.2g}",
    )


def _s4(found: Evidence) -> Finding:
    clean, weak, strong = (found.miou("half", spec) for spec in ("clean", found.weak, found.strong))
    q_weak, q_strong = (value / clean if clean > 0 else math.nan for value in (weak, strong))
    verdict = NOT_TESTABLE
    if not math.isnan(q_weak + q_strong):
        verdict = HELD if q_weak >= 0.5 and q_strong < 0.1 else NOT_HELD
    own = [found.miou("adversarial", spec) for spec in ("clean", found.weak, found.strong)]
    said = f"50/50 keeps {q_weak:.2f} of its clean mIoU under the weak attack and {q_strong:.2f} under the strong one"
    other = f"adversarial {own[1] / own[0]:.2f} and {own[2] / own[0]:.2f}" if own[0] > 0 else "adversarial not run"
    return Finding(
        "S4",
        "the 50/50 network holds against weak attacks only: at least half of its clean mIoU under the attack of its training, under a tenth under a strong one",
        verdict,
        f"{said}; {other}",
    )
