"""What the study of Arnab et al. 2018 measures, and its records by role.

Without torch. All figures are IoU ratios: mIoU under attack over clean mIoU, on the same images.

Source: Arnab, Miksik, Torr, CVPR 2018 (arXiv 1711.09856), sections 4 to 7.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robustseg.results import findings as audits
from robustseg.results import metrics
from robustseg.results.record import Record
from robustseg.studies.study import SEEDS

SINGLE = {
    "FGSM": "arnab2018_fgsm(budget='linf:{:g}/255')",
    "FGSM ll": "arnab2018_fgsm_ll(budget='linf:{:g}/255')",
}
ITERATIVE = {
    "iterative FGSM": "arnab2018_ifgsm(budget='linf:{:g}/255')",
    "iterative FGSM ll": "arnab2018_ifgsm_ll(budget='linf:{:g}/255')",
}
UNTARGETED, TARGETED = ITERATIVE.values()
"""The paper's four attacks; `ll`: towards the least likely class, found anew at each step as in the authors' code."""

BRANCHES = {
    "scale 0.5": "multiscale({}, scales=(0.5,), fusion='max')",
    "scale 0.75": "multiscale({}, scales=(0.75,), fusion='max')",
}
MULTI, CRF = "multi-scale", "CRF"
FRONTS = {
    "JPEG": "jpeg({})",
    "median filter": "median({})",
    "Gaussian blur": "gaussian_blur({})",
    "bit depth": "bit_depth({})",
    "resize and pad": "resize_and_pad({})",
}
RANDOM = ("resize and pad",)
AROUND = {
    **BRANCHES,
    MULTI: "multiscale({}, scales=(0.5, 0.75, 1.0), fusion='max')",
    CRF: "crf({}, senders=256)",
    **FRONTS,
}
"""What is put around the first network of the study: a name, and the spec around its spec."""


@dataclass(frozen=True)
class Attacks:
    """What is tried; every eps in n/255.

    Args:
        single, iterative: eps of the paper's single-step and iterative attacks, ascending.
        sea: eps of SEA. sea_steps: of each of its three runs. class_pixels: for it, see `attacks.apgd.sea`.
        around: eps of the iterative attacks on what is put around a network, and on that network, and of PGD on
            input transformations.
        transfer: eps of the black-box matrix.
        steps: of that PGD. draws: of a random input transformation at each step of it.
    """

    single: tuple[float, ...]
    iterative: tuple[float, ...]
    sea: tuple[float, ...]
    sea_steps: int
    around: tuple[float, ...]
    transfer: float
    steps: int = 10
    draws: int = 8
    class_pixels: tuple[int, ...] | None = None

    def sea_spec(self, eps: float) -> str:
        """SEA at this eps."""
        pixels = f", class_pixels={self.class_pixels}" if self.class_pixels else ""
        return f"sea(budget='linf:{eps:g}/255', steps={self.sea_steps}{pixels})"

    def pgd_spec(self, eps: float, who: str = "") -> str:
        """PGD at this eps, with the mean gradient over draws where the network is a random input transformation."""
        draws = f", draws={self.draws}" if who in RANDOM else ""
        return f"pgd(budget='linf:{eps:g}/255', steps={self.steps}{draws})"

    def families(self) -> dict[str, dict[float, str]]:
        """What every network is measured under: name of the attack -> eps -> spec."""
        known = {name: {eps: spec.format(eps) for eps in self.single} for name, spec in SINGLE.items()}
        known |= {name: {eps: spec.format(eps) for eps in self.iterative} for name, spec in ITERATIVE.items()}
        return {**known, "SEA": {eps: self.sea_spec(eps) for eps in self.sea}}


class Need(NamedTuple):
    """One figure that the study needs: `source` makes the attack, `target` is measured."""

    source: str
    target: str
    attack: str


def first_seeds(names: Iterable[str]) -> list[str]:
    """Of each network the first seed: `NAME-seed1` and so on after NAME are further ones."""
    firsts: dict[str, str] = {}
    for name in names:
        firsts.setdefault(name.partition("-seed")[0], name)
    return list(firsts.values())


def needs(names: Sequence[str], attacks: Attacks) -> list[Need]:
    """All figures of the study for these networks, the first of which is the one that others are put around."""
    base, ones = names[0], first_seeds(names)
    scales = (*BRANCHES, base, MULTI)
    own = [Need(n, n, spec) for n in names for by_eps in attacks.families().values() for spec in by_eps.values()]
    black_box = [Need(a, b, UNTARGETED.format(attacks.transfer)) for a in ones for b in ones]
    around = [spec.format(eps) for eps in attacks.around for spec in ITERATIVE.values()]
    matrix = [Need(a, b, spec) for spec in around for a in scales for b in scales]
    crf = [Need(a, b, spec) for spec in around for a, b in ((base, CRF), (CRF, CRF))]
    fronts = [
        Need(*pair, attacks.pgd_spec(eps, pair[0]))
        for eps in attacks.around
        for front in FRONTS
        for pair in ((base, base), (base, front), (front, front))
    ]
    return list(dict.fromkeys([*own, *black_box, *matrix, *crf, *fronts]))


class Evidence:
    """Records by role: networks by their names, what is around the first of them by the names of `AROUND`.

    Args:
        records: of the study. specs: role -> spec, as records name it. data: spec of the images.
        names: of the networks, in order. attacks: what was tried.
        widths: names of one architecture by ascending width. several: names of networks that are multi-scale or
            CRFs themselves, which claims on plain networks leave out.
        audited: what the audit of the untargeted attack on the CRF found.
    """

    def __init__(
        self,
        records: Sequence[Record],
        specs: Mapping[str, str],
        *,
        data: str,
        names: Sequence[str],
        attacks: Attacks,
        widths: Sequence[str] = (),
        several: Sequence[str] = (),
        audited: Sequence[audits.Finding] = (),
    ):
        self.names, self.attacks, self.widths, self.several = tuple(names), attacks, tuple(widths), tuple(several)
        self.base, self.audited = self.names[0], tuple(audited)
        roles = {spec: role for role, spec in specs.items()}
        self._found: dict[Need, Record] = {}
        self._clean: dict[str, list[Record]] = {}
        for r in records:
            target, source = roles.get(r.network), roles.get(r.source)
            if r.data != data or target is None or source is None:
                continue
            if r.clean:
                self._clean.setdefault(target, []).append(r)
            else:
                self._found[Need(source, target, r.perturbation)] = r

    def clean_over(self, target: str, ids: Sequence[str]) -> float:
        """Clean mIoU over these images; NaN where it was not measured on all of them."""
        for record in reversed(self._clean.get(target, [])):
            place = {name: i for i, name in enumerate(record.ids)}
            if all(name in place for name in ids):
                return metrics.miou(record.counts, [place[name] for name in ids])
        return math.nan

    def clean(self, target: str) -> float:
        """Clean mIoU over all images of the study."""
        found = self._clean.get(target)
        return metrics.miou(found[-1].counts) if found else math.nan

    def left(self, target: str, attack: str, source: str | None = None) -> float:
        """mIoU under an attack on the network itself, or on another one; NaN where it was not measured."""
        found = self._found.get(Need(source or target, target, attack))
        return metrics.miou(found.counts) if found else math.nan

    def ratio(self, target: str, attack: str, source: str | None = None) -> float:
        """The IoU ratio, NaN where it was not measured."""
        found = self._found.get(Need(source or target, target, attack))
        below = self.clean_over(target, found.ids) if found else math.nan
        return metrics.miou(found.counts) / below if found and below > 0 else math.nan

    def images(self, attacks: Iterable[str] | None = None) -> str:
        """How many images the figures rest on, of some attacks or of all: `10 to 20 images`; empty without figures."""
        wanted = None if attacks is None else set(attacks)
        numbers = {len(r.ids) for need, r in self._found.items() if wanted is None or need.attack in wanted}
        return f"{' to '.join(map(str, sorted({min(numbers), max(numbers)})))} images" if numbers else ""

    def measured(self, source: str, target: str, attack: str | None) -> bool:
        """Whether this is recorded; None: clean."""
        return target in self._clean if attack is None else Need(source, target, attack) in self._found

    def seeds(self, name: str) -> list[str]:
        """A network and its further seeds."""
        return [n for n in self.names if n.partition("-seed")[0] == name.partition("-seed")[0]]

    def seeing(self) -> list[str]:
        """Networks with at least half of the best clean mIoU: one that sees little has little to lose, and a high ratio."""
        clean = {name: self.clean(name) for name in self.names}
        best = max((value for value in clean.values() if not math.isnan(value)), default=math.nan)
        return [name for name, value in clean.items() if value >= best / 2]

    def spread(self, attack: str) -> float:
        """Standard deviation of the ratio over seeds, pooled over the networks with enough of them; NaN without."""
        own = [[self.ratio(n, attack) for n in self.seeds(name)] for name in first_seeds(self.names)]
        known = [np.var(values, ddof=1) for values in own if len(values) >= SEEDS and not any(map(math.isnan, values))]
        return float(np.sqrt(np.mean(known))) if known else math.nan


def percent(value: float) -> str:
    """A ratio in percent, or that it was not run."""
    return "not run" if math.isnan(value) else f"{100 * value:.1f}"
