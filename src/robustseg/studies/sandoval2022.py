"""Sandoval-Segura 2022: robust training, and the images that robust gradients make.

    robustseg reproduce sandoval2022 --tier camvid --out runs/sandoval2022-camvid     # --dry-run says the hours

Three trainings of one network (on clean images, on a half and on all of them attacked) are attacked, and their gradients fill
holes and draw scenes. Of the paper only the abstract is available, so the protocol is ours throughout and nothing stands beside our
figures: one hole a third of the image high and wide, at a place drawn for each image; the ground truth as the target; the border's
colours grown inward as the start; the same hole, target, start and steps for every network. An independent network, trained on clean
images, judges. On CamVid expect S1 to S3 to hold, and S4 not: the 50/50 network keeps half of its clean mIoU under SEA.

`FOLDER/measures.jsonl` holds what paintings and gradients are like, image by image, and `FOLDER/panels` the pictures. They show
the images of the data, so they are not for publication where those are not.

Source: Sandoval-Segura 2022 (arXiv 2204.01099).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robustseg.core.registry import study
from robustseg.results import metrics
from robustseg.studies.evidence import Evidence
from robustseg.studies.measures import Measure, Measuring
from robustseg.studies.page import Table, number, percent
from robustseg.studies.study import CLEAN, Basis, Images, Row, Study, claim, tier_of
from robustseg.studies.trainings import Training
from robustseg.studies.verdicts import over_frames, over_images

if TYPE_CHECKING:
    from robustseg.core.types import Batch
    from robustseg.studies.run import Work

# What is measured

ROLES = {"standard": "standard", "half": "50/50", "adversarial": "adversarial"}
"""The networks of the study: trained on clean images, on a half and on all of them attacked."""
START, ORIGINAL, JUDGE = "start", "original", "judge"
"""Beside the networks' paintings: the hole as it started, and the original image; and the independent network."""
KINDS = {"gradients": "holes", "inpaint": "holes", "generate": "maps"}
"""What is measured besides records, and on which images."""


def painters(kind: str) -> tuple[str, ...]:
    """Whose measures of this kind there are."""
    return tuple(ROLES) if kind == "gradients" else (*ROLES, START, ORIGINAL)


@dataclass(frozen=True)
class Setting:
    """What the study must know of its tier.

    Args:
        protocol: what must be said beside each figure.
        networks: by role, a spec or a training. judge: spec of the independent network.
        data: reported on. choose: to train and to draw class colours by. size: (height, width) of everything.
        weak: spec of the attack of the training. strong: of the strong one.
        fill, draw: how holes are filled and scenes drawn, arguments of `synthesis.paint.Settings`.
        holes, maps: how many. class_steps: of the picture of every class; 0 draws none.
        blocks: images a block of the bootstrap, of all images and of those with holes.
        precision: of training. passes: precision of attacks, see `Conditions`.
    """

    protocol: str
    networks: Mapping[str, str | Training]
    judge: str
    data: str
    choose: str
    size: tuple[int, int]
    weak: str
    strong: str
    fill: Mapping[str, Any]
    draw: Mapping[str, Any]
    holes: int = 20
    maps: int = 4
    class_steps: int = 100
    blocks: tuple[int, int] = (15, 2)
    precision: str = "32-true"
    passes: str = "float32"

    @property
    def perturbations(self) -> tuple[str, str, str]:
        """Clean, weak, strong."""
        return CLEAN, self.weak, self.strong


# Where it is measured

PAINTING = {"steps": 100, "step": 0.01, "noise": 0.02}
"""The recipe of Santurkar et al. 2019, plain steps in an L2 ball; at 240x180 its radius is a root mean square of 0.1 over a hole
(l2:12), and of 0.15 over an image (l2:54)."""
PIXELS = "10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967"
"""Of each class in CamVid's training set: robustseg doctor --all."""


def _trainings(
    architecture: str, data: str, recipe: Mapping[str, Any], attack: str, warm_up: float
) -> dict[str, str | Training]:
    """The three trainings of one network, which differ in the share of attacked images alone."""
    adversary = {"attack": attack, "warm_up": warm_up}
    shares = dict(zip(ROLES, (0.0, 0.5, 1.0), strict=True))
    return {
        role: Training(architecture, data, recipe, {**adversary, "share": share} if share else None)
        for role, share in shares.items()
    }


def _synthetic(_: str) -> Setting:
    size, text = (48, 96), "48x96"
    attack = "pgd(budget='linf:2/255', steps=2, keep='last')"
    recipe = {"epochs": 16, "batch_size": 4, "crop": size, "scale": (1.0, 1.0), "learning_rate": 3e-3, "ema": 0.9}
    streets = "streets(seed=0, scenes={}, frames=1, size='{}', split='{}')"
    architecture, labelled = "erfnet(classes='camvid', width=0.25)", streets.format(16, text, "train")
    painting = {"steps": 10, "step": 0.02, "coarse": 2}
    return Setting(
        protocol="made-up streets at 96x48, a few epochs: shows that it runs, claims nothing",
        networks=_trainings(architecture, labelled, {**recipe, "check_every": 16}, attack, 2),
        judge="zoo:erfnet-streets",
        data=streets.format(4, text, "test"),
        choose=streets.format(4, text, "val"),
        size=size,
        weak=attack,
        strong="sea(budget='linf:2/255', steps=4)",
        fill=painting,
        draw=painting,
        holes=4,
        maps=1,
        class_steps=5,
        blocks=(1, 1),
    )


def _camvid(data: str) -> Setting:
    root = f"{data}/camvid"
    return Setting(
        protocol="4/255; 240x180, 40 test frames spread evenly over Seq05VD (a new drive) and 0001TP (a seen one), one seed; holes, maps and "
        "gradients on frames spread evenly over these; passes of attacks in bfloat16",
        networks={
            "standard": "zoo:erfnet-camvid",
            "half": "zoo:erfnet-camvid-at50",
            "adversarial": "zoo:erfnet-camvid-at",
        },
        judge="zoo:deeplabv3plus-camvid",
        data=f"camvid(root='{root}', split='test', subset='cpu')",
        choose=f"camvid(root='{root}', split='holdout')",
        size=(180, 240),
        weak="pgd(budget='linf:4/255', steps=2, step_size='2.5/255', keep='last')",
        strong=f"sea(budget='linf:4/255', steps=30, class_pixels=({PIXELS}))",
        fill={**PAINTING, "budget": "l2:12"},
        draw={**PAINTING, "budget": "l2:54"},
        blocks=(3, 2),  # frames 6 s and 12 s apart
        passes="bfloat16",  # so that records of studies/adversarial-camvid are these
    )


def _full(data: str) -> Setting:
    root, attack = f"{data}/cityscapes", "pgd(budget='linf:4/255', steps=5, keep='last')"
    recipe = {"epochs": 400, "batch_size": 16, "crop": (448, 448), "scale": (0.25, 1.0), "learning_rate": 5e-4}
    architecture = "smp('PSPNet', encoder='resnet50', classes='cityscapes')"
    return Setting(
        protocol="Cityscapes at 1024x512, trained on fine train, chosen on Lindau, reported on Frankfurt and Munster; one seed",
        networks=_trainings(architecture, f"cityscapes(root='{root}', split='train')", recipe, attack, 20),
        judge="transformers('nvidia/segformer-b0-finetuned-cityscapes-1024-1024', classes='cityscapes')",
        data=f"cityscapes(root='{root}', split='frankfurt+munster')",
        choose=f"cityscapes(root='{root}', split='lindau')",
        size=(512, 1024),
        weak=attack,
        strong="sea(budget='linf:4/255', steps=300)",
        fill={**PAINTING, "budget": "l2:42"},
        draw={**PAINTING, "budget": "l2:188"},
        precision="bf16-mixed",
    )


# What the records and measures say


def mean(f: Evidence, kind: str, who: str, name: str) -> float:
    """A value of the measures, the mean over the images that have one; NaN without any."""
    known = [v for m in f.of(kind, who) if math.isfinite(v := m.values.get(name, math.nan))]
    return float(np.mean(known)) if known else math.nan


def agreement(f: Evidence, kind: str, who: str) -> float:
    """mIoU of the independent network's prediction to the label maps, pooled over images."""
    counts = [m.counts for m in f.of(kind, who) if m.counts]
    return metrics.miou(sum(counts[1:], counts[0])) if counts else math.nan


def apart(f: Evidence, kind: str, value: Callable[[Measure], float], *, above: str, below: str) -> dict[str, float]:
    """Image by image, the value of one role less that of another, over the images where both have one."""
    first, second = ({m.image: value(m) for m in f.of(kind, who)} for who in (above, below))
    gaps = {image: first[image] - second[image] for image in first if image in second}
    return {image: gap for image, gap in gaps.items() if not math.isnan(gap)}


# Tables


def tables(f: Evidence) -> list[Table]:
    """Robustness, inpainting, generation, gradients."""
    return [_robustness(f), _inpainting(f), _generation(f), _gradients(f)]


def _robustness(f: Evidence) -> Table:
    setting, rows = f.settings, []
    for role, label in ROLES.items():
        strong = f.record(role, setting.strong)
        alive = str(int((metrics.class_iou(strong.counts) > 0.1).sum())) if strong else "not run"
        rows.append((label, *(percent(f.miou(role, spec)) for spec in setting.perturbations), alive))
    columns = ("training", "clean", f"`{setting.weak}`", f"`{setting.strong}`", "classes over 10 % IoU there")
    return Table("mIoU in %", columns, rows, "One seed each.")


def _inpainting(f: Evidence) -> Table:
    digits, rows = {"loss": 2, "seen": 2, "ssim": 3, "psnr": 1, "variation": 2}, []
    for who, label in {**ROLES, START: "none: the hole as it started", ORIGINAL: "none: what was there"}.items():
        own = [number(mean(f, "inpaint", who, name), places) for name, places in digits.items()]
        rows.append((label, percent(agreement(f, "inpaint", who)), *own))
    note = (
        "Agreement: mIoU in % of the independent network's prediction to the label map, in the hole, over all images together; the "
        "rest are means over images. Loss: cross-entropy to the label map. Seen: the share of the hole that the network itself labels as "
        "asked. Variation: total variation over that of what was there."
    )
    columns = ("training", "agreement", "loss", "seen", "SSIM", "PSNR", "variation")
    return Table(f"Inpainting, {len(f.of('inpaint', 'standard'))} holes", columns, rows, note)


def _generation(f: Evidence) -> Table:
    rows = []
    for who, label in {**ROLES, START: "none: the start", ORIGINAL: "none: the real image"}.items():
        own = [number(mean(f, "generate", who, name), 2) for name in ("loss", "seen", "variation")]
        rows.append((label, percent(agreement(f, "generate", who)), *own))
    columns = ("training", "agreement", "loss", "seen", "variation")
    return Table(f"Generation, {len(f.of('generate', 'standard'))} label maps", columns, rows)


def _gradients(f: Evidence) -> Table:
    names = ("plain share", "smooth share", "plain edges", "smooth edges")
    rows = [(label, *(number(mean(f, "gradients", r, name), 3) for name in names)) for r, label in ROLES.items()]
    note = (
        "Share: of the energy of the input-gradient map above 1/4 cycle a pixel (white noise: 0.80). Edges: correlation of the "
        "map's size with the image's edges. Smooth: mean over 16 noisy copies. The gradient of the mean log-probability of the labels."
    )
    columns = ("training", "high share", "high share, smooth", "edges", "edges, smooth")
    return Table(f"Input gradients, {len(f.of('gradients', 'standard'))} images", columns, rows, note)


# Claims


def _runs(f: Evidence, *wanted: tuple[str, str]) -> list[Any]:
    found = (f.record(role, spec) for role, spec in wanted)
    return [record and record.counts for record in found]


def _less(first: Any, second: Any) -> Any:
    return first - second


def _share(attacked: Any, clean: Any) -> Any:
    return 100 * attacked / clean


@claim(
    "S1",
    "the adversarially trained network has the lower clean mIoU and the higher one under the attack of its training, and under a strong one",
)
def s1(f: Evidence) -> Basis:
    """Differences of mIoU in points, one network of each."""
    plain, robust = "standard", "adversarial"
    clean, weak, strong = f.settings.perturbations
    block = f.study.images["report"].block
    cases = [
        over_frames("clean lead of standard", _runs(f, (plain, clean), (robust, clean)), _less, above=0, block=block),
        over_frames("weak lead of adversarial", _runs(f, (robust, weak), (plain, weak)), _less, above=0, block=block),
        over_frames(
            "strong lead of adversarial", _runs(f, (robust, strong), (plain, strong)), _less, above=0, block=block
        ),
    ]
    said = ", ".join(
        f"{role} {' / '.join(percent(f.miou(role, spec)) for spec in (clean, weak, strong))}"
        for role in (plain, robust)
    )
    return Basis(cases, f"in points; mIoU in % clean / weak / strong: {said} (one seed each)")


def _accuracy(measure: Measure) -> float:
    return 100 * metrics.pixel_accuracy(measure.counts) if measure.counts else math.nan


def _value(name: str) -> Callable[[Measure], float]:
    return lambda measure: measure.values[name]


@claim(
    "S2",
    "from the same hole, target, start and steps an independent network agrees more with the adversarial network's painting, its SSIM is "
    "higher, and the standard network reaches the lower loss with the rougher image",
)
def s2(f: Evidence) -> Basis:
    """Paired image by image; agreement as the share of the hole that is labelled as asked."""
    plain, robust = "standard", "adversarial"
    parts = {
        "agreement": apart(f, "inpaint", _accuracy, above=robust, below=plain),
        "SSIM": apart(f, "inpaint", _value("ssim"), above=robust, below=plain),
        "standard's lead in loss": apart(f, "inpaint", _value("loss"), above=robust, below=plain),
        "standard's excess of variation": apart(f, "inpaint", _value("variation"), above=plain, below=robust),
    }
    block = f.study.images["holes"].block
    cases = [over_images(_on(name, gaps), gaps, above=0, block=block) for name, gaps in parts.items()]
    miou = " and ".join(percent(agreement(f, "inpaint", who)) for who in (robust, plain))
    ssim = " and ".join(number(mean(f, "inpaint", who, "ssim"), 3) for who in (robust, plain))
    return Basis(cases, f"mIoU {miou} %, SSIM {ssim} (adversarial and standard)")


def _on(name: str, gaps: Mapping[str, float]) -> str:
    return f"{name} ({sum(gap > 0 for gap in gaps.values())} of {len(gaps)} images)"


@claim("S3", "input-gradient maps of the adversarially trained network have the lower share of high-frequency energy")
def s3(f: Evidence) -> Basis:
    """The share of the standard network less that of the adversarial one, paired image by image."""
    gaps = apart(f, "gradients", _value("plain share"), above="standard", below="adversarial")
    shares = [mean(f, "gradients", who, "plain share") for who in ("adversarial", "standard")]
    case = over_images(_on("share by which it is lower", gaps), gaps, above=0, block=f.study.images["holes"].block)
    return Basis([case], f"{' and '.join(number(share, 3) for share in shares)} (adversarial and standard)")


@claim(
    "S4",
    "the 50/50 network holds against weak attacks only: at least half of its clean mIoU under the attack of its training, under a tenth under a strong one",
)
def s4(f: Evidence) -> Basis:
    """Shares of the clean mIoU in %."""
    clean, weak, strong = f.settings.perturbations
    block = f.study.images["report"].block
    cases = [
        over_frames("weak", _runs(f, ("half", weak), ("half", clean)), _share, above=50, ours=True, block=block),
        over_frames("strong", _runs(f, ("half", strong), ("half", clean)), _share, below=10, ours=True, block=block),
    ]
    own = " and ".join(percent(f.ratio("adversarial", spec)) for spec in (weak, strong))
    return Basis(cases, f"share of the clean mIoU in %; of the adversarial network {own}")


# The study


def _measuring(setting: Setting, kind: str, who: str, images: str) -> Measuring:
    """The step of one kind for one network, or for what stands beside the networks."""

    def about(work: "Work") -> dict[str, Any]:
        from robustseg.studies.sandoval2022_paint import about

        return about(work, setting, kind, who)

    def make(work: "Work", batch: "Batch | None") -> Sequence[Measure]:
        from robustseg.studies.sandoval2022_paint import measured

        assert batch is not None  # as every kind has images
        return measured(work, setting, kind, who, batch)

    return Measuring(kind, who, about, make, images)


@dataclass(frozen=True)
class Pictures:
    """Sheets of holes, scenes and gradients, the classes as each network draws them, and the blind pairs, in `FOLDER/panels`."""

    setting: Setting
    name: str = "pictures"

    def run(self, work: "Work") -> None:
        """Draw them; paintings without a picture are made again."""
        from robustseg.studies.sandoval2022_paint import draw_panels

        draw_panels(work, self.setting)

    def seconds(self, work: "Work") -> float:
        """Not judged: paintings are there by then."""
        return 0.0


@study("sandoval2022")
def sandoval2022(tier: str = "synthetic", data: str = "data") -> Study:
    """Sandoval-Segura 2022: robust training, and the images that robust gradients make. Tiers synthetic, camvid, full."""
    found = tier_of(tier, {"synthetic": _synthetic, "camvid": _camvid, "full": _full})(data)
    whole, thin = found.blocks
    specs = {role: given if isinstance(given, str) else given.architecture for role, given in found.networks.items()}
    return Study(
        title="Sandoval-Segura 2022: robust training, and the images that robust gradients make",
        source="Sandoval-Segura 2022 (arXiv 2204.01099)",
        tier=tier,
        protocol=found.protocol,
        networks={**found.networks, JUDGE: found.judge},
        images={
            "report": Images(found.data, found.size, block=whole),
            "holes": Images(found.data, found.size, (found.holes,), thin),
            "maps": Images(found.data, found.size, (found.maps,), thin),
            "choose": Images(found.choose, found.size),
        },
        rows=[Row(r, r, "report", spec, precision=found.passes) for spec in found.perturbations for r in ROLES],
        claims=(s1, s2, s3, s4),
        tables=tables,
        about={
            **{ROLES[role]: spec for role, spec in specs.items()},
            "judge": found.judge,
            "holes": ", ".join(f"{name} {value}" for name, value in found.fill.items()),
            "scenes": ", ".join(f"{name} {value}" for name, value in found.draw.items()),
        },
        extras=(
            *(_measuring(found, kind, who, images) for kind, images in KINDS.items() for who in painters(kind)),
            Pictures(found),
        ),
        settings=found,
        precision=found.precision,
    )
