"""Klingner et al. 2020: depth from video as a second task, under noise and attack on one axis of realised strength.

    robustseg reproduce klingner2020 --tier camvid --out runs/klingner2020-camvid       # --dry-run says the hours
    robustseg reproduce klingner2020 --tier camvid --rows single-0,multi-0 --out …      # some networks; several processes may share a folder

A network is trained on labels alone (`single`), on labels and depth from video (`multi`), and on labels with the video in batch
norm alone (`control`, lambda 0). Of the paper only the abstract is available, so nothing stands beside our figures; it claims that the
second task consistently outperforms the single one under noise and attack, and on clean images. On CamVid expect no such gain.

Decisions of ours: the control; three seeds; the sweep over lambda with one seed, unless a tier says more; ten draws of each noise, and
the worst of them, as an attack is a worst case; SEA. Q of a noise is the mean over its draws; between strengths that were measured it
is interpolated linearly over log2 of the realised root mean square. `FOLDER/networks/NAME` holds all of one network.

Source: Klingner, Bär, Fingscheidt, CVPR Workshops 2020 (arXiv 2004.11072).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from robustseg.core.errors import RobustsegError
from robustseg.core.registry import study
from robustseg.report.figures import strength_figure
from robustseg.results import metrics
from robustseg.results.record import Record
from robustseg.results.summary import mean_score
from robustseg.studies.evidence import Evidence
from robustseg.studies.measures import Measure, Measuring
from robustseg.studies.page import Figure
from robustseg.studies.study import SEEDS, Basis, Images, Row, Study, claim, tier_of
from robustseg.studies.trainings import Training
from robustseg.studies.verdicts import exact, over_seeds

if TYPE_CHECKING:
    from robustseg.core.types import Batch
    from robustseg.studies.run import Work

# What is measured

KINDS = {
    "single": "labels alone",
    "control": "labels; video in batch norm alone",
    "multi": "labels and depth from video",
}
"""How the networks of the study are trained."""
NOISES = {
    "Gaussian": "gaussian(rms='{:g}/255')",
    "uniform": "uniform(rms='{:g}/255')",
    "sign": "sign(rms='{:g}/255')",
    "salt and pepper": "salt_and_pepper(rms='{:g}/255')",
}
ATTACKS = {
    "FGSM": "klingner2020_fgsm(budget='linf:{:g}/255')",
    "BIM": "klingner2020_bim(budget='linf:{:g}/255')",
    "PGD": "klingner2020_pgd(budget='linf:{:g}/255')",
}
SEA = "SEA"
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0)
"""Of the authors' later code, in n/255."""
DEPTHS = {"streets": "made-up streets", "dgp": "DGP frames, LiDAR"}
"""Where depth is measured: names of measures, and in words."""
HELD_VIDEO = "held-out video"
"""Where views and poses are measured, in names of measures."""


def name_of(kind: str, seed: int) -> str:
    """The name of a network of the study: `multi-0`."""
    return f"{kind}-{seed}"


def baseline_of(baseline: str, who: str) -> str:
    """The name of what a network is compared with: `row median of multi-0`."""
    return f"{baseline} of {who}"


class Change(NamedTuple):
    """One perturbation that a network is measured under: its family, how strong in n/255, its spec, the seed of the draw."""

    family: str
    strength: float
    spec: str
    draw: int = 0


@dataclass(frozen=True)
class Changes:
    """What networks are measured under; strengths in n/255.

    Args:
        sea: spec of SEA, with a place for the strength. sea_strengths: of SEA.
        attacks: family -> spec with a place for the strength, as `ATTACKS`.
        strengths: of noises and attacks, for one network of each kind. few: for all other networks.
        draws: of each noise for one network of each kind; others see one.
    """

    sea: str
    sea_strengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    attacks: Mapping[str, str] = field(default_factory=lambda: dict(ATTACKS))
    strengths: tuple[float, ...] = STRENGTHS
    few: tuple[float, ...] = (1.0, 4.0, 8.0, 24.0, 32.0)
    draws: int = 10

    @property
    def families(self) -> tuple[str, ...]:
        """Noises, then attacks, without SEA."""
        return (*NOISES, *self.attacks)

    def of(self, who: str, family: str = "") -> list[Change]:
        """All that this network is measured under, or those of one family."""
        whole, found = who in {name_of(kind, 0) for kind in KINDS}, []
        specs = {**NOISES, **self.attacks, SEA: self.sea}
        for name in (family,) if family else specs:
            strengths = self.sea_strengths if name == SEA else self.strengths if whole else self.few
            draws = self.draws if whole and name in NOISES else 1
            found += [Change(name, s, specs[name].format(s), draw) for s in strengths for draw in range(draws)]
        return found


@dataclass(frozen=True)
class Setting:
    """What the study must know of its tier.

    Args:
        protocol: what must be said beside each figure.
        architecture: spec of the network, with a depth decoder. recipe: of every training, without the seed.
        labelled: trained on. choose: to choose the best weights by. report: reported on. images: how many of those, evenly spread.
        size: (height, width) of what is reported on.
        video: trained on. held: the video that is held out, with intrinsics and poses. frame: (height, width) of both where depth and
            poses are measured.
        depth: frames with true depth, by a name of `DEPTHS`.
        changes: what images are changed by. zoom: range of the random factor on the video's size.
        weight: lambda of the multi-task networks. weights: of the sweep, with one seed unless they are in `seeded`.
        seeds: of each kind, and of the weights in `seeded`.
        precision: of training. passes: precision of attacks, see `Conditions`.
    """

    protocol: str
    architecture: str
    recipe: Mapping[str, Any]
    labelled: str
    choose: str
    report: str
    images: int
    size: tuple[int, int]
    video: str
    held: str
    frame: tuple[int, int]
    depth: Mapping[str, str]
    changes: Changes
    zoom: tuple[float, float] = (1.0, 1.0)
    weight: float = 0.1
    weights: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    seeds: int = SEEDS
    seeded: tuple[float, ...] = ()
    precision: str = "32-true"
    passes: str = "float32"

    @property
    def sweep(self) -> dict[float, str]:
        """The kinds of the sweep over lambda: 0 is the control, the study's own lambda the multi-task network."""
        known = {0.0: "control", self.weight: "multi"}
        return {weight: known.get(weight, f"lambda{weight:g}") for weight in self.weights}

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The networks of each kind, by seed; the sweep's others after the three kinds."""
        few = {kind: self.seeds if weight in self.seeded else 1 for weight, kind in self.sweep.items()}
        counts = {**few, **dict.fromkeys(KINDS, self.seeds)}
        kinds = (*KINDS, *(kind for kind in self.sweep.values() if kind not in KINDS))
        return {kind: tuple(name_of(kind, seed) for seed in range(counts[kind])) for kind in kinds}

    @property
    def watching(self) -> tuple[str, ...]:
        """The networks whose depth and poses are measured: those that learn depth with several seeds."""
        kinds = ("multi", *(self.sweep[weight] for weight in self.seeded))
        return tuple(who for kind in kinds for who in self.groups[kind])

    def networks(self) -> dict[str, Training]:
        """How each network is trained, the seeds of one number together."""
        weights = {"single": None, "multi": self.weight, **{kind: weight for weight, kind in self.sweep.items()}}
        return {
            who: self._training(weights[kind], seed)
            for kind, names in self.groups.items()
            for seed, who in enumerate(names)
        }

    def _training(self, weight: float | None, seed: int) -> Training:
        depth = None if weight is None else {"video": self.video, "weight": weight, "scale": self.zoom}
        return Training(self.architecture, self.labelled, {**self.recipe, "seed": seed}, depth=depth)


# Where it is measured


def _steps(count: int, size: str) -> dict[str, str]:
    """FGSM, BIM and PGD of so many steps of this size."""
    return {
        "FGSM": "fgsm(budget='linf:{:g}/255')",
        "BIM": f"ifgsm(budget='linf:{{:g}}/255', steps={count}, step_size='{size}')",
        "PGD": f"pgd(budget='linf:{{:g}}/255', steps={count}, step_size='{size}', keep='last')",
    }


def _synthetic(_: str) -> Setting:
    size, text = (48, 96), "48x96"
    streets = f"streets(scenes={{}}, frames={{}}, size='{text}', split='{{}}')"
    video = f"streets(scenes={{}}, frames={{}}, size='{text}', split='{{}}', neighbours=True)"
    strengths = (4.0, 8.0, 32.0)
    recipe = {"epochs": 30, "batch_size": 4, "crop": size, "scale": (1.0, 1.0), "learning_rate": 2e-3, "ema": 0.9}
    return Setting(
        protocol="made-up streets at 96x48, a few epochs, one seed: shows that it runs, claims nothing",
        architecture="multitask(encoder='erfnet', width=0.25)",
        recipe={**recipe, "check_every": 30},
        labelled=streets.format(16, 1, "train"),
        choose=streets.format(4, 1, "val"),
        report=streets.format(4, 1, "test"),
        images=4,
        size=size,
        video=video.format(4, 4, "train"),
        held=video.format(1, 6, "val"),
        frame=size,
        depth={"streets": streets.format(4, 1, "test")},
        changes=Changes(
            "sea(budget='linf:{:g}/255', steps=3)", (1.0, 2.0), _steps(3, "16/255"), strengths, strengths, draws=3
        ),
        weights=(0.0, 0.1),
        seeds=1,
    )


def _camvid(data: str) -> Setting:
    root, video = f"{data}/camvid", f"{data}/video"
    # intrinsics of rectified KITTI frames of this size, assumed: the clip comes without
    town = f"clip('{video}/kitti_test984.mp4', intrinsics=(721.5377, 721.5377, 609.5593, 172.854), size='131x434')"
    drive = f"clip('{video}/kitti_odometry_06/image_0', intrinsics=(707.0912, 707.0912, 601.8873, 183.1104), size='131x434')"
    recipe = {"epochs": 24, "batch_size": 8, "crop": (128, 192), "scale": (0.45, 0.8)}
    return Setting(
        protocol="CamVid 'fit' (334 frames) and video of KITTI (a town, 268 frames, intrinsics assumed; odometry 06, 51 frames, grey) at 434x131, crops of 192x128; "
        "12 test frames spread evenly over Seq05VD (a new drive) and 0001TP (a seen one) at 240x180; BIM and PGD of 10 steps of 4/255, SEA of 3 x 10; "
        "held out: odometry b, a motorway ramp; ERFNet's encoder at half its width from scratch, where the paper has ResNet-18 from ImageNet",
        architecture="multitask(encoder='erfnet', width=0.5)",
        recipe={**recipe, "check_every": 6, "ema": 0.995},
        labelled=f"camvid(root='{root}', split='fit')",
        choose=f"camvid(root='{root}', split='holdout')",
        report=f"camvid(root='{root}', split='test', subset='cpu')",
        images=12,
        size=(180, 240),
        video=f"joined({town}, {drive})",
        zoom=(1.0, 1.2),
        held=f"kitti_odometry(root='{video}/kitti_odometry_b')",
        frame=(128, 416),
        depth={
            "streets": "streets(scenes=20, frames=1, size='192x384', split='test')",
            "dgp": f"joined(dgp(root='{video}/dgp_scene_01'), dgp(root='{video}/dgp_scene_02'))",
        },
        changes=Changes("sea(budget='linf:{:g}/255', steps=10)", attacks=_steps(10, "4/255")),
        seeded=(0.9,),
        precision="bf16-mixed",
        passes="bfloat16",
    )


def _camvid_own_video(data: str) -> Setting:
    """As `camvid`, with video of the domain of the labels, so that batch norm sees one domain, and most of the encoder's gradient from depth."""
    return replace(
        _camvid(data),
        protocol="CamVid 'fit' (334 frames) and CamVid's own 'val' as video without its labels (101 frames at 15 Hz of a drive that the labels know, in a gap of "
        "them; focal length learned) at 240x180, enlarged by 1 to 1.6, crops of 192x128; all else as in the tier camvid, whose networks 'single' are trained alike",
        video=f"clip('{data}/camvid/val', size='180x240')",
        zoom=(1.0, 1.6),
        weight=0.9,
        weights=(0.0, 0.9),
        seeded=(),
    )


def _camvid_imagenet(data: str) -> Setting:
    """As `camvid`, with an encoder pretrained on ImageNet, as the paper's, and most of its gradient from depth."""
    known = _camvid(data)
    return replace(
        known,
        protocol="as the tier camvid (labels of CamVid 'fit', video of KITTI, 12 test frames at 240x180), but for the encoder, EfficientNet-lite0 from ImageNet, "
        "where the paper has ResNet-18 from ImageNet, and 12 epochs",
        architecture="multitask(encoder='tf_efficientnet_lite0', width=0.5, encoder_weights='imagenet')",
        recipe={**known.recipe, "epochs": 12},
        weight=0.9,
        weights=(0.0, 0.9),
        seeded=(),
    )


def _full(data: str) -> Setting:
    root = f"{data}/cityscapes"
    recipe = {"epochs": 20, "batch_size": 6, "crop": (192, 640), "scale": (0.52, 0.75), "learning_rate": 1e-4}
    return Setting(
        protocol="Cityscapes fine train and KITTI raw, the schedule of the authors' later code, chosen on Lindau, reported on 100 frames of Frankfurt "
        "and Munster at 1024x512; held out: KITTI odometry 09; ResNet-18 from ImageNet, as the paper's",
        architecture="multitask(encoder='resnet18', classes='cityscapes', encoder_weights='imagenet')",
        recipe={**recipe, "weight_decay": 0.0},
        labelled=f"cityscapes(root='{root}', split='train')",
        choose=f"cityscapes(root='{root}', split='lindau')",
        report=f"cityscapes(root='{root}', split='frankfurt+munster')",
        images=100,
        size=(512, 1024),
        video=f"kitti_raw(root='{data}/kitti_raw', classes='cityscapes')",
        zoom=(0.53, 0.6),
        held=f"kitti_odometry(root='{data}/kitti_odometry', sequences=('09',), classes='cityscapes')",
        frame=(192, 640),
        depth={"streets": "streets(scenes=100, frames=1, size='192x640', split='test')"},
        changes=Changes("sea(budget='linf:{:g}/255', steps=100)"),
        precision="bf16-mixed",
        passes="bfloat16",
    )


TIERS = {
    "synthetic": _synthetic,
    "camvid": _camvid,
    "camvid-own-video": _camvid_own_video,
    "camvid-imagenet": _camvid_imagenet,
    "full": _full,
}

# What the records and measures say


def miou(f: Evidence) -> Callable[[str], float]:
    """Clean mIoU in % of a network."""
    return lambda who: 100 * f.miou(who)


def draws(f: Evidence, who: str, family: str) -> dict[float, list[Record]]:
    """The records of a network under a family of perturbations: strength -> one record a draw of a noise."""
    found: dict[float, list[Record]] = {}
    for change in f.settings.changes.of(who, family):
        if record := f.record(who, change.spec, seed=change.draw):
            found.setdefault(change.strength, []).append(record)
    return found


def q(f: Evidence, who: str, family: str) -> dict[float, float]:
    """Q in % by strength, the mean over draws; empty where it was not measured."""
    clean = f.record(who)
    if clean is None:
        return {}
    return {
        strength: 100 * float(np.mean([metrics.q(record.counts, clean.counts) for record in found]))
        for strength, found in draws(f, who, family).items()
    }


def worst_q(f: Evidence, who: str, family: str) -> dict[float, float]:
    """Q in % by strength, where each image takes its worst draw; empty where it was not measured."""
    before = f.miou(who)
    if not before > 0:
        return {}
    found = draws(f, who, family)
    return {s: 100 * metrics.worst([r.counts for r in records]).miou / before for s, records in found.items()}


def mean_q(f: Evidence, family: str) -> Callable[[str], float]:
    """Mean Q in % of a network over the strengths that every network is measured at; NaN where one is missing."""
    changes = f.settings.changes
    strengths = changes.sea_strengths if family == SEA else changes.few

    def value(who: str) -> float:
        known = q(f, who, family)
        return float(np.mean([known.get(strength, math.nan) for strength in strengths]))

    return value


def q_at(f: Evidence, kind: str, family: str, rms: Sequence[float]) -> np.ndarray:
    """Q in % of each seed at realised root mean squares (n/255), `[seeds, len(rms)]`; NaN outside of what was measured."""
    curves = []
    for who in f.study.seeds[kind]:
        known, found = q(f, who, family), draws(f, who, family)
        realised = {s: 255 * float(np.mean([mean_score(record, "rms") for record in found[s]])) for s in known}
        across, up = np.array(sorted((realised[s], known[s]) for s in known)).reshape(-1, 2).T
        between = [math.nan if not len(across) or not across[0] <= x <= across[-1] else math.log2(x) for x in rms]
        curves.append(np.interp(between, np.log2(across), up) if len(across) else np.full(len(rms), math.nan))
    return np.array(curves)


def values(f: Evidence, kind: str, who: str, name: str) -> list[float]:
    """A value of the measures of a kind, by image."""
    return [measure.values[name] for measure in f.of(kind, who) if name in measure.values]


def mean(f: Evidence, kind: str, who: str, name: str) -> float:
    """Its mean over images; NaN where it was not measured."""
    return float(np.mean(known)) if (known := values(f, kind, who, name)) else math.nan


# Claims

COMPARED = (8.0, 12.0, 16.0)
"""Realised root mean squares, in n/255, at which claim K1 compares."""
EQUAL = 0.5
"""Margin in points of Q within which an attack is at least as strong as another."""
MARGIN = 1.0
"""Margin in points of mIoU and of Q within which a training is at least as good as another."""
ROUNDING = 1e-9
"""The relative error of a gradient in float64 that is rounding."""


@claim(
    "K1",
    "noise beats attack: at a realised RMS of 8, 12 and 16 /255, Q(Gaussian) > Q(salt and pepper) > Q(FGSM) >= Q(PGD) for the network "
    "trained on labels alone",
)
def k1(f: Evidence) -> Basis:
    """Leads in points of Q; FGSM at least as high as PGD within a margin."""
    order = ("Gaussian", "salt and pepper", "FGSM", "PGD")
    kept = {family: q_at(f, "single", family, COMPARED) for family in order}
    cases = []
    for above, below in pairwise(order):
        goal: dict[str, Any] = {"above": -EQUAL, "ours": True} if below == "PGD" else {"above": 0.0}
        for rms, leads in zip(COMPARED, (kept[above] - kept[below]).T, strict=True):
            known = leads[~np.isnan(leads)].tolist()
            cases.append(over_seeds(f"{above} over {below} at {rms:g}/255", known, **goal))
    return Basis(cases, "points of Q")


def gains(f: Evidence, kind: str, other: str) -> dict[str, list[float]]:
    """Gains of one kind over another in points, seed by seed: clean mIoU, and mean Q of each family."""
    figures = {"clean mIoU": miou(f), **{family: mean_q(f, family) for family in f.settings.changes.families}}
    return {name: f.gains(kind, other, value) for name, value in figures.items()}


@claim(
    "K2",
    "the network trained with depth from video has the higher clean mIoU and the higher Q under each noise and each attack than the one "
    "trained on labels alone",
)
def k2(f: Evidence) -> Basis:
    """Superiority; the table of gains compares with the control, which sees the video in batch norm alone."""
    found = gains(f, "multi", "single")
    return Basis([over_seeds(name, gain, above=0.0) for name, gain in found.items()], "gains in points")


@claim(
    "K2 at least as good",
    "the network trained with depth from video has at least the clean mIoU and the Q under each noise and each attack of the one trained on "
    "labels alone, within a margin of one point",
)
def k2_at_least(f: Evidence) -> Basis:
    """Non-inferiority."""
    found = gains(f, "multi", "single")
    return Basis([over_seeds(name, gain, above=-MARGIN, ours=True) for name, gain in found.items()], "gains in points")


@claim(
    "K3",
    "lambda changes no output, and the gradient that reaches the encoder is lambda times that of depth plus 1 - lambda times that of segmentation",
)
def k3(f: Evidence) -> Basis:
    """Exact."""
    outputs, gradients = (values(f, "split", name_of("multi", 0), name) for name in ("outputs", "gradients"))
    cases = [
        exact("outputs", sum(value == 0 for value in outputs), len(outputs)),
        exact("gradients", sum(value <= ROUNDING for value in gradients), len(gradients)),
    ]
    if not outputs or not gradients:
        return Basis(cases, "not run")
    return Basis(cases, f"outputs differ by {max(outputs):g}, gradients by {max(gradients):.1e} of their size")


@claim("K4", "where the camera stands still every pixel is masked, and the depth loss has no gradient")
def k4(f: Evidence) -> Basis:
    """Exact."""
    masked, gradients = (values(f, "static", name_of("multi", 0), name) for name in ("masked", "gradient"))
    cases = [
        exact("masks", sum(value == 1 for value in masked), len(masked)),
        exact("gradients", sum(value == 0 for value in gradients), len(gradients)),
    ]
    if not masked or not gradients:
        return Basis(cases, "not run")
    return Basis(cases, f"{100 * min(masked):g} % of the pixels masked, gradient {max(gradients):g}")


@claim("K5", "beyond the paper: what depth gains is still there under the ensemble SEA at 0.25 to 2 /255")
def k5(f: Evidence) -> Basis:
    """Superiority under SEA."""
    kinds = ("multi", "single")
    kept = [f.by_seed(kind, mean_q(f, SEA)) for kind in kinds]
    left = [q_at(f, kind, "PGD", [8.0])[:, 0] for kind in kinds]

    def pair(by_kind: Iterable[Sequence[float] | np.ndarray]) -> str:
        means = (float(np.mean(values)) if len(values) else math.nan for values in by_kind)
        return " and ".join("not run" if math.isnan(value) else f"{value:.1f}" for value in means)

    case = over_seeds("gain in points of mean Q", f.gains("multi", "single", mean_q(f, SEA)), above=0.0)
    return Basis(
        [case], f"mean Q {pair(kept)} % (multi and single); at an RMS of 8/255 PGD leaves a Q of {pair(left)} %"
    )


# The study


def curves(f: Evidence) -> list[Figure]:
    """mIoU and Q of one seed of each kind against realised strength."""
    ones = {name_of(kind, 0) for kind in KINDS}
    found = [record for row in f.study.rows if row.target in ones for record in f.all(row)]
    svg = strength_figure(found) if found else ""
    return [Figure("mIoU and Q against realised strength, one seed", svg, "curves.svg")]


def _watched(setting: Setting, who: str) -> Measuring:
    """Depth and poses of one network, and what must be exact."""

    def about(work: "Work") -> dict[str, Any]:
        from robustseg.studies.klingner2020_depth import about

        return about(work, setting, who)

    def make(work: "Work", _: "Batch | None") -> Sequence[Measure]:
        from robustseg.studies.klingner2020_depth import measured

        return measured(work, setting, who)

    return Measuring("depth and poses", who, about, make, place=f"networks/{who}")


def _rows(setting: Setting, who: str) -> list[Row]:
    clean = Row(who, who, precision=setting.passes, place=f"networks/{who}")
    return [clean, *(replace(clean, perturbation=c.spec, seed=c.draw) for c in setting.changes.of(who))]


@study("klingner2020")
def klingner2020(tier: str = "synthetic", data: str = "data", rows: Sequence[str] | None = None) -> Study:
    """Klingner et al. 2020: depth from video as a second task. Tiers synthetic, camvid, camvid-own-video, camvid-imagenet, full.

    Args:
        tier: of these. data: the folder with `camvid` and `video`, or with `cityscapes`, `kitti_raw` and `kitti_odometry`.
        rows: names of the networks to train and measure, such as `multi-0`; the page then covers these alone. None: all.

    Raises:
        RobustsegError: there is no such tier or network.
    """
    from robustseg.studies.klingner2020_tables import tables  # these speak of the lookups above

    setting = tier_of(tier, TIERS)(data)
    networks = setting.networks()
    for row in rows or ():
        if row not in networks:
            raise RobustsegError(
                f"expected rows that are networks of the study, got '{row}'; try {', '.join(networks)}"
            )
    chosen = [who for who in networks if not rows or who in rows]
    return Study(
        title="Klingner et al. 2020: depth from video as a second task, under noise and attack",
        source="Klingner, Bär, Fingscheidt, CVPR Workshops 2020 (arXiv 2004.11072)",
        tier=tier,
        protocol=setting.protocol,
        networks=networks,
        images={
            "report": Images(setting.report, setting.size, (setting.images,)),
            "choose": Images(setting.choose, setting.size),
            "held": Images(setting.held, setting.frame),
        },
        rows=[row for who in chosen for row in _rows(setting, who)],
        claims=(k1, k2, k2_at_least, k3, k4, k5),
        tables=tables,
        about={
            "network": setting.architecture,
            "video": setting.video,
            "lambda": f"{setting.weight:g}",
            "the paper": "The paper's tables are not available, so nothing stands beside our figures; its abstract claims that the second task "
            "consistently outperforms the single one under noise and attack, and on clean images.",
        },
        figures=curves,
        seeds=setting.groups,
        extras=[_watched(setting, who) for who in chosen if who in setting.watching],
        settings=setting,
        precision=setting.precision,
    )
