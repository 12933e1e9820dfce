"""Arnab et al. 2018: what makes a segmentation network robust, on the tier's networks or on anybody's.

    robustseg reproduce arnab2018 --tier camvid --out runs/arnab2018-camvid       # --dry-run says the hours
    robustseg reproduce arnab2018 --tier full --network SPEC --data SPEC --out …  # the same attacks on your networks and images

The paper's own values are not available, so nothing stands beside ours; its claims are trends, tested by A1 to A7. On CamVid
expect every architecture to keep less than a tenth of its clean mIoU under iterative FGSM at 8/255.

Decisions of ours, where the paper is silent or misses something: images are clipped to [0, 1], which the authors' code does not
do; SEA stands beside the paper's four attacks; multi-scale fusion, CRF and input transformations wrap one trained network, so that
weights are equal and only the wrapper differs; input transformations are attacked by PGD, through surrogate gradients where they
round and with the mean gradient over EOT samples where they are random.

Source: Arnab, Miksik, Torr, CVPR 2018 (arXiv 1711.09856), sections 4 to 7.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from robustseg.core.errors import RobustsegError
from robustseg.core.registry import describe, study
from robustseg.report.words import short_names
from robustseg.results import findings as audits
from robustseg.studies.evidence import Evidence
from robustseg.studies.page import percent
from robustseg.studies.study import SEEDS, Basis, Images, Row, Study, claim, tier_of
from robustseg.studies.trainings import Trained, Training
from robustseg.studies.verdicts import Case, exact, over_frames, over_seeds

if TYPE_CHECKING:
    from robustseg.studies.run import Work
else:
    Work = Any  # torch is loaded where it is needed

# What is measured

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
    "scale 0.5": "multiscale(network={}, scales=(0.5,), fusion='max')",
    "scale 0.75": "multiscale(network={}, scales=(0.75,), fusion='max')",
}
MULTI, CRF = "multi-scale", "CRF"
FRONTS = {
    "JPEG": "jpeg(network={})",
    "median filter": "median(network={})",
    "Gaussian blur": "gaussian_blur(network={})",
    "bit depth": "bit_depth(network={})",
    "resize and pad": "resize_and_pad(network={})",
}
RANDOM = ("resize and pad",)
AROUND = {
    **BRANCHES,
    MULTI: "multiscale(network={}, scales=(0.5, 0.75, 1.0), fusion='max')",
    CRF: "crf(network={}, senders=256)",
    **FRONTS,
}
"""The wrappers of the study's first network: a name, and the spec around its spec."""


@dataclass(frozen=True)
class Attacks:
    """What is tried; every eps in n/255.

    Args:
        single, iterative: eps of the paper's single-step and iterative attacks, ascending.
        sea: eps of SEA. sea_steps: of each of its three runs. class_pixels: for it, see `attacks.apgd.sea`.
        around: eps of the iterative attacks on wrappers and on the network inside, and of PGD on input transformations.
        transfer: eps of the black-box matrix.
        steps: of that PGD. draws: EOT samples of a random input transformation at each step of it.
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
        """PGD at this eps, with the mean gradient over EOT samples where the network is a random input transformation."""
        draws = f", draws={self.draws}" if who in RANDOM else ""
        return f"pgd(budget='linf:{eps:g}/255', steps={self.steps}{draws})"

    def families(self) -> dict[str, dict[float, str]]:
        """What every network is measured under: name of the attack -> eps -> spec."""
        known = {name: {eps: spec.format(eps) for eps in self.single} for name, spec in SINGLE.items()}
        known |= {name: {eps: spec.format(eps) for eps in self.iterative} for name, spec in ITERATIVE.items()}
        return {**known, "SEA": {eps: self.sea_spec(eps) for eps in self.sea}}


@dataclass(frozen=True)
class Setting:
    """What the study must know of its tier.

    Args:
        networks: by name, a spec or a training; further seeds of NAME are `NAME-seed1` and so on. The first one is wrapped.
        data: spec of the reported images. choose: of the held-out images. size: (height, width), None: as they are.
        attacks: what is tried. widths: names of one architecture by ascending width.
        images: how many, evenly spread, None: all. few: of these, for SEA. audited: of these, for the audit of the CRF.
        block: see `Images`. protocol: what must be said beside each figure.
        precision: of training. batch_size: images at a time.
    """

    networks: Mapping[str, str | Trained]
    data: str
    choose: str
    size: tuple[int, int] | None
    attacks: Attacks
    protocol: str
    widths: tuple[str, ...] = ()
    images: int | None = None
    few: int | None = None
    audited: int = 2
    block: int = 15
    precision: str = "32-true"
    batch_size: int = 4

    @property
    def base(self) -> str:
        """The network that is wrapped."""
        return next(iter(self.networks))

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The first network of each name -> all its seeds."""
        stems: dict[str, list[str]] = {}
        for name in self.networks:
            stems.setdefault(name.partition("-seed")[0], []).append(name)
        return {names[0]: tuple(names) for names in stems.values()}

    @property
    def several(self) -> tuple[str, ...]:
        """Networks that are multi-scale, or have a CRF, themselves; claims on plain networks leave them out."""
        specs = {name: given if isinstance(given, str) else given.stand_in for name, given in self.networks.items()}
        return tuple(name for name, spec in specs.items() if "multiscale(" in spec or "crf(" in spec)

    def rows(self) -> list[Row]:
        """All figures of the study, clean ones first."""
        attacks, base, ones, scales = self.attacks, self.base, self.groups, (*BRANCHES, self.base, MULTI)
        around = [spec.format(eps) for eps in attacks.around for spec in ITERATIVE.values()]
        pgd = [((a, b), eps) for eps in attacks.around for f in FRONTS for a, b in ((base, base), (base, f), (f, f))]
        return [
            *(Row(n, n) for n in (*self.networks, *AROUND)),
            *(
                Row(n, n, images_of(spec), spec)
                for n in self.networks
                for by_eps in attacks.families().values()
                for spec in by_eps.values()
            ),
            *(Row(a, b, "report", UNTARGETED.format(attacks.transfer)) for a in ones for b in ones),
            *(Row(a, b, "report", spec) for spec in around for a in scales for b in scales),
            *(Row(a, CRF, "report", spec) for spec in around for a in (base, CRF)),
            *(Row(*pair, "report", attacks.pgd_spec(eps, pair[0])) for pair, eps in pgd),
        ]


def images_of(attack: str) -> str:
    """The images that an attack is tried on: SEA takes too long for all of them."""
    return "few" if describe(attack).name == "sea" else "report"


# Where it is measured

PIXELS = (10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967)
"""Of each class in CamVid's training set: robustseg doctor --all."""


def _synthetic(_: str) -> Setting:
    size, text = (48, 96), "48x96"
    streets = "streets(seed=0, scenes={}, frames=1, size='{}', split='{}')"
    recipe = {"epochs": 8, "batch_size": 4, "crop": size, "scale": (1.0, 1.0), "learning_rate": 3e-3, "ema": 0.9}

    def trained(width: float) -> Training:
        architecture, data = f"erfnet(classes='camvid', width={width})", streets.format(16, text, "train")
        return Training(architecture, data, {**recipe, "check_every": 8})

    return Setting(
        networks={"erfnet": "zoo:erfnet-streets", "erfnet-quarter": trained(0.25), "erfnet-eighth": trained(0.125)},
        data=streets.format(4, text, "test"),
        choose=streets.format(4, text, "val"),
        size=size,
        attacks=Attacks((8,), (1, 8), sea=(1,), sea_steps=4, around=(8,), transfer=8, steps=4, draws=2),
        protocol="made-up streets at 96x48, a few epochs: shows that it runs, claims nothing",
        widths=("erfnet-eighth", "erfnet-quarter", "erfnet"),
        few=2,
        audited=1,
        block=1,
    )


def _camvid(data: str) -> Setting:
    root = f"{data}/camvid"
    specs = {
        "erfnet": "erfnet(classes='camvid')",
        "fcn8s": "fcn8s(classes='camvid', encoder='resnet18', width=0.5)",
        "deeplabv2": "deeplabv2(classes='camvid', encoder='resnet18', width=0.5)",
        "pspnet": "pspnet(classes='camvid', encoder='resnet18', width=0.5)",
        "segnet": "segnet(classes='camvid', encoder='vgg16_bn', width=0.25)",
        "enet": "enet(classes='camvid')",
        "erfnet-eighth": "erfnet(classes='camvid', width=0.125)",
        "erfnet-quarter": "erfnet(classes='camvid', width=0.25)",
        "erfnet-half": "erfnet(classes='camvid', width=0.5)",
    }
    seeds = {name: (name, 0) for name in specs}
    seeds |= {f"{name}-seed{seed}": (name, seed) for name in ("erfnet", "fcn8s") for seed in range(1, SEEDS)}
    recipe, labelled = {"epochs": 30, "batch_size": 8, "scale": (0.45, 1.0)}, f"camvid(root='{root}', split='fit')"
    return Setting(
        networks={n: Training(specs[name], labelled, {**recipe, "seed": seed}) for n, (name, seed) in seeds.items()},
        data=f"camvid(root='{root}', split='test', subset='cpu')",
        choose=f"camvid(root='{root}', split='holdout')",
        size=(180, 240),
        attacks=Attacks(
            single=(0.25, 0.5, 1, 2, 4, 8, 16, 32),
            iterative=(0.25, 0.5, 1, 2, 4, 8),
            sea=(0.5, 1),
            sea_steps=30,
            around=(1, 4, 8),
            transfer=8,
            draws=4,
            class_pixels=PIXELS,
        ),
        protocol="240x180, test frames spread evenly over Seq05VD (a new drive) and 0001TP (a seen one); all networks trained from nothing by one "
        "recipe, three seeds of erfnet and fcn8s, one of the others; what is around a network is around erfnet, seed 0",
        widths=("erfnet-eighth", "erfnet-quarter", "erfnet-half", "erfnet"),
        images=20,
        few=10,
        block=2,  # frames 12 s apart
        precision="bf16-mixed",
    )


def _full(data: str) -> Setting:
    eps = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
    return Setting(
        networks={},
        data=f"cityscapes(root='{data}/cityscapes', split='val')",
        choose="",
        size=(512, 1024),
        attacks=Attacks(single=eps, iterative=eps, sea=(0.5, 1), sea_steps=300, around=eps[2:], transfer=8),
        protocol="Cityscapes val at 1024x512",
        few=50,
        audited=8,
        batch_size=1,
    )


def setting(
    tier: str, data: str, networks: Sequence[str] | None = None, size: tuple[int, int] | None = None
) -> Setting:
    """A tier by its name, or its attacks on other networks and images.

    Args:
        tier: synthetic, camvid or full.
        data: the folder with `camvid`, or with `cityscapes`; or a data spec, which is reported on in place of the tier's.
        networks: specs, or names of the tier's networks; by default all of the tier's.
        size: in place of the tier's; of a data spec, None is the images' own.

    Raises:
        RobustsegError: there is no such tier, or the tier needs networks.
    """
    own_data = "(" in data
    found = tier_of(tier, {"synthetic": _synthetic, "camvid": _camvid, "full": _full})("data" if own_data else data)
    if networks:
        short = short_names([spec for spec in networks if spec not in found.networks])
        chosen = {short.get(spec, spec): found.networks.get(spec, spec) for spec in networks}
        found = replace(found, networks=chosen, widths=tuple(n for n in found.widths if n in chosen))
        if short or own_data:
            found = replace(found, protocol=f"attacks of tier {tier}; networks and images that the user named")
    if own_data:
        found = replace(found, data=data, size=size)
    if not found.networks:
        raise RobustsegError(f"expected networks for tier {tier}, got none; try --network SPEC, several times")
    return found if size is None else replace(found, size=size)


# What the records say: IoU ratios by role


def kept(f: Evidence, target: str, attack: str, source: str = "") -> float:
    """The IoU ratio of a network under an attack on itself, or on another one; NaN where it was not measured."""
    return f.ratio(target, attack, source=source, images=images_of(attack))


def seeing(f: Evidence) -> list[str]:
    """Networks with at least half of the best clean mIoU: one that sees little has little to lose, and a high ratio."""
    clean = {name: f.miou(name) for name in f.settings.networks}
    best = max((value for value in clean.values() if not math.isnan(value)), default=math.nan)
    return [name for name, value in clean.items() if value >= best / 2]


def image_counts(f: Evidence, attacks: Iterable[str] | None = None) -> str:
    """How many images the figures rest on, of some attacks or of all: `10 to 20 images`; empty without figures."""
    wanted = None if attacks is None else set(attacks)
    found = (r for row in f.study.rows if row.perturbation != "clean" for r in f.all(row)[-1:])
    numbers = {len(r.ids) for r in found if wanted is None or r.perturbation in wanted}
    return f"{' to '.join(map(str, sorted({min(numbers), max(numbers)})))} images" if numbers else ""


# Claims

SLACK = 0.02
"""What still counts as equal: two points of IoU ratio."""
FEW = 0.05
"""What the claims call a few points."""
MORE = 1e-6
"""By so much is what is higher above what is not: of equals none is."""
PLAIN = "plain networks (one scale, no CRF, at least half of the best clean mIoU)"


class Try(NamedTuple):
    """One instance of an exact claim: by how much it is met (below 0: it is not), and how it reads."""

    margin: float
    text: str


def _counted(parts: Mapping[str, Sequence[Try]], most: int = 6) -> Basis:
    """Exact cases: how many instances hold of those that were measured, and which do not."""
    cases, said = [], []
    for label, tried in parts.items():
        known = [one for one in tried if not math.isnan(one.margin)]
        missed = sorted((one for one in known if one.margin < 0), key=lambda one: one.margin)
        cases.append(exact(label, len(known) - len(missed), len(known)))
        if missed:
            more = f" and {len(missed) - most} more" if len(missed) > most else ""
            said.append(f"{label}, not: {', '.join(one.text for one in missed[:most])}{more}")
        elif known:
            said.append(f"{label}, nearest: {min(known, key=lambda one: one.margin).text}")
    return Basis(cases, "; ".join(said))


class Part(NamedTuple):
    """A ratio, see `kept`; an empty target is the network that a case is about."""

    target: str
    attack: str
    source: str = ""


def _case(
    f: Evidence, label: str, names: Sequence[str], parts: Sequence[Part], figure: Callable[..., Any], **goal: Any
) -> Case:
    """A case on IoU ratios in %: over the seeds of a network, or over the frames of a single one.

    Args:
        f: evidence. label: of the case. names: seeds of one network. parts: the ratios that the figure is made of.
        figure: of these ratios. goal: see `verdicts.over_seeds`.
    """
    if len(names) >= SEEDS:
        values = [float(figure(*(100 * kept(f, p.target or n, p.attack, p.source) for p in parts))) for n in names]
        return over_seeds(label, [value for value in values if not math.isnan(value)], **goal)
    runs = [f.record(p.target or names[0], p.attack, source=p.source) for p in parts]
    clean = [f.record(p.target or names[0]) for p in parts]

    def of_ratios(*miou: Any) -> Any:
        return figure(*(100 * a / b for a, b in zip(miou[: len(parts)], miou[len(parts) :], strict=True)))

    block = f.study.images["report"].block
    return over_frames(label, [r.counts if r else None for r in (*runs, *clean)], of_ratios, block=block, **goal)


def _less(first: Any, second: Any) -> Any:
    return first - second


def _plain(f: Evidence) -> dict[str, list[str]]:
    """The seeds of each plain network."""
    seen = [name for name in seeing(f) if name not in f.settings.several]
    groups = {name: [n for n in names if n in seen] for name, names in f.settings.groups.items()}
    return {name: names for name, names in groups.items() if names}


@claim(
    "A1",
    "the IoU ratio lies in [0, 1.02], and under the iterative attacks it nowhere rises by more than two points with eps",
)
def a1(f: Evidence) -> Basis:
    """Every network, eps by eps; exact."""
    inside, falling = [], []
    for name in f.settings.networks:
        for family, template in ITERATIVE.items():
            curve = {eps: kept(f, name, template.format(eps)) for eps in f.settings.attacks.iterative}
            for (low, before), (high, after) in pairwise(curve.items()):
                text = f"{name}, {family} {low:g} to {high:g}/255: {percent(before)} to {percent(after)} %"
                falling.append(Try(before + SLACK - after, text))
            inside += [
                Try(min(r, 1 + SLACK - r), f"{name}, {family} {e:g}/255: {percent(r)} %") for e, r in curve.items()
            ]
    return _counted({"ratio in range, and no rise": [*inside, *falling]})


@claim("A2", f"from 4/255 on, iterative FGSM leaves {PLAIN} no more than FGSM does, at equal eps")
def a2(f: Evidence) -> Basis:
    """What FGSM leaves less what iterative FGSM leaves, in points of IoU ratio."""
    cases = []
    for name, seeds in _plain(f).items():
        for eps in (e for e in f.settings.attacks.iterative if e >= 4 and e in f.settings.attacks.single):
            parts = [Part("", SINGLE["FGSM"].format(eps)), Part("", UNTARGETED.format(eps))]
            cases.append(_case(f, f"{name} {eps:g}/255", seeds, parts, _less, above=0))
    return Basis(cases, "points of IoU ratio")


@claim("A3", f"from 8/255 on, iterative FGSM ll leaves {PLAIN} less than a quarter")
def a3(f: Evidence) -> Basis:
    """The IoU ratio in %."""
    cases = []
    for name, seeds in _plain(f).items():
        for eps in (e for e in f.settings.attacks.iterative if e >= 8):
            parts = [Part("", TARGETED.format(eps))]
            cases.append(_case(f, f"{name} {eps:g}/255", seeds, parts, lambda left: left, below=25, ours=True))
    return Basis(cases, "IoU ratio in %")


@claim(
    "A4",
    "multi-scale max fusion keeps a higher ratio than the same weights at 100 % only, under an attack on the 100 % branch; through the "
    "whole graph the gap shrinks, and stays at least 0 (within two points)",
)
def a4(f: Evidence) -> Basis:
    """One network under each attack and eps; exact."""
    base, parts = f.settings.base, dict[str, list[Try]](branch=[], shrinks=[], whole=[])
    for family, template in ITERATIVE.items():
        for eps in f.settings.attacks.around:
            spec = template.format(eps)
            bare = kept(f, base, spec)
            branch, whole = kept(f, MULTI, spec, base) - bare, kept(f, MULTI, spec) - bare
            text = f"{family} {eps:g}/255: ahead by {percent(branch)}, then {percent(whole)} points"
            margins = {"branch": branch - MORE, "shrinks": branch - whole - MORE, "whole": whole + SLACK}
            for part, margin in margins.items():
                parts[part].append(Try(margin, text))
    return _counted(parts)


def _least_ahead(own: Any, *others: Any) -> Any:
    return np.minimum.reduce(others) - own


@claim("A5", "an attack made at one scale leaves least at that scale (0.5, 0.75, 1)")
def a5(f: Evidence) -> Basis:
    """What is left at the other scale that keeps least, less what is left at the attacked one."""
    base = f.settings.base
    scales, cases = (*BRANCHES, base), []
    for family, template in ITERATIVE.items():
        for eps in f.settings.attacks.around:
            for attacked in scales:
                order = [attacked, *(scale for scale in scales if scale != attacked)]
                parts = [Part(scale, template.format(eps), attacked) for scale in order]
                where = "scale 1" if attacked == base else attacked
                cases.append(_case(f, f"{family} {eps:g}/255 on {where}", [base], parts, _least_ahead, above=0))
    return Basis(cases, "points of IoU ratio")


@claim(
    "A6",
    "an attack that knows the input transformation leaves within 5 points of what it leaves the bare network, and clearly (2 points) "
    "less than one that does not",
)
def a6(f: Evidence) -> Basis:
    """Two bounds for "within 5 points", one for "less"."""
    base, attacks, cases = f.settings.base, f.settings.attacks, []
    for front in FRONTS:
        for eps in attacks.around:
            aware, bare = Part(front, attacks.pgd_spec(eps, front)), Part(base, attacks.pgd_spec(eps))
            unaware, label = Part(front, attacks.pgd_spec(eps), base), f"{front} {eps:g}/255"
            cases += [
                _case(f, f"{label} aware - bare", [base], [aware, bare], _less, above=-100 * FEW, ours=True),
                _case(f, f"{label} aware - bare", [base], [aware, bare], _less, below=100 * FEW, ours=True),
                _case(f, f"{label} unaware - aware", [base], [unaware, aware], _less, above=100 * SLACK, ours=True),
            ]
    return Basis(cases, "points of IoU ratio")


@claim(
    "A7",
    "the CRF keeps a higher ratio than its network under the untargeted attack, about the same (5 points) under the targeted one, falls "
    "further by transfer from its network than by the untargeted attack on itself, and the audit says that it masks gradients",
)
def a7(f: Evidence) -> Basis:
    """One network at each eps; exact."""
    base, parts = f.settings.base, dict[str, list[Try]](untargeted=[], targeted=[], transfer=[])
    for eps in f.settings.attacks.around:
        away, towards = UNTARGETED.format(eps), TARGETED.format(eps)
        bare, own, through = kept(f, base, away), kept(f, CRF, away), kept(f, CRF, away, base)
        bare_ll, own_ll = kept(f, base, towards), kept(f, CRF, towards)
        parts["untargeted"].append(Try(own - bare - MORE, f"{eps:g}/255: CRF {percent(own)}, bare {percent(bare)} %"))
        text = f"{eps:g}/255: CRF {percent(own_ll)}, bare {percent(bare_ll)} %"
        parts["targeted"].append(Try(FEW - abs(own_ll - bare_ll), text))
        text = f"{eps:g}/255: through its network {percent(through)}, itself {percent(own)} %"
        parts["transfer"].append(Try(own - through - MORE, text))
    basis, audited = _counted(parts), audits.read_findings(f.folder / "crf")
    hints = sorted({found.check for found in audited if found.masking})
    said = f"signs of masking: {', '.join(hints) or 'none'}" if audited else "not audited"
    return Basis([*basis.cases, exact("audit", int(bool(hints)), int(bool(audited)))], f"{basis.said}; {said}")


# The study


class Audit(NamedTuple):
    """The audit of the untargeted attack on the CRF at the largest eps; the surrogate model is the network inside."""

    eps: float
    images: int
    base: str
    name: str = "audit the CRF"

    def run(self, work: Work) -> None:
        """Measure the CRF in a folder of its own, and audit it there."""
        from robustseg import api
        from robustseg.audit import audit
        from robustseg.evaluation.run import Conditions, evaluate

        folder, conditions = work.folder / "crf", Conditions(batch_size=work.study.batch_size)
        options: dict[str, Any] = {"conditions": conditions, "folder": folder, "panels": 0, "on_batch": work.on_batch}
        attack = api.perturbation(UNTARGETED.format(self.eps))
        evaluate(work.network(CRF), work.data("audit"), attack, **options)
        transfer = work.evidence().spec(self.base, work.folder)
        audit(folder, images=self.images, transfer=transfer, device=work.device, on_batch=work.on_batch)

    def seconds(self, work: Work) -> float:
        """About ten times the attack, and what does not depend on it; 0 where there is an audit."""
        row = Row(CRF, CRF, "audit", UNTARGETED.format(self.eps))
        return 0.0 if audits.read_findings(work.folder / "crf") else 15 * work.seconds([row])


@study("arnab2018")
def arnab2018(
    tier: str = "synthetic",
    data: str = "data",
    networks: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
) -> Study:
    """Arnab et al. 2018: what makes a segmentation network robust. Tiers synthetic, camvid, full; or networks of your own."""
    return study_of(tier, setting(tier, data, networks, size))


def study_of(tier: str, found: Setting) -> Study:
    """The study with these settings."""
    from robustseg.studies.arnab2018_tables import tables  # these speak of the lookups above
    from robustseg.studies.arnab2018_words import figures, words

    base = {role: spec.format(f"{{{found.base}}}") for role, spec in AROUND.items()}
    spread = (found.images,) if found.images else ()
    return Study(
        title="Arnab et al. 2018: what makes a segmentation network robust",
        source="Arnab, Miksik, Torr, CVPR 2018 (arXiv 1711.09856)",
        tier=tier,
        protocol=found.protocol,
        networks={**found.networks, **base},
        images={
            "report": Images(found.data, found.size, spread, found.block),
            "few": Images(found.data, found.size, (*spread, found.few) if found.few else spread),
            "audit": Images(found.data, found.size, (*spread, found.audited)),
            "choose": Images(found.choose, found.size),
        },
        rows=found.rows(),
        claims=(a1, a2, a3, a4, a5, a6, a7),
        tables=tables,
        about={"images": found.data},
        words=words,
        figures=figures,
        seeds=found.groups,
        extras=(Audit(found.attacks.around[-1], found.audited, found.base),),
        settings=found,
        precision=found.precision,
        batch_size=found.batch_size,
    )
