"""Where the study of Sandoval-Segura 2022 is run: networks, data, attacks, and how images are made."""

from dataclasses import dataclass, replace

from robustseg.studies.legacy import tier_of
from robustseg.studies.pretraining import Pretraining
from robustseg.studies.sandoval2022_claims import ROLES
from robustseg.synthesis.paint import Settings
from robustseg.training import Recipe
from robustseg.training.adversarial import Adversary

FILL = Settings(steps=100, step=0.01, budget="l2:12", noise=0.02)
DRAW = Settings(steps=100, step=0.01, budget="l2:54", noise=0.02)
"""The recipe of Santurkar et al. 2019, plain steps in an L2 ball; here its radius is a root mean square of 0.1 over a hole, and of 0.15
over an image, at 240x180."""


@dataclass(frozen=True)
class Tier:
    """Where the study is run.

    Args:
        name: of the tier. protocol: what must be said beside each figure.
        networks: by role, a spec or how to train it. judge: spec of the independent network.
        data: reported on. choose: to train and to draw class colours by. size: (height, width) of everything.
        weak: perturbation spec of the attack of the training. strong: of the strong one.
        fill, draw: how holes are filled and scenes drawn.
        holes, maps: how many. class_steps: of the picture of every class; 0 draws none.
        precision: of training. passes: precision of attacks, see `Conditions`. batch_size: images at a time.
    """

    name: str
    protocol: str
    networks: dict[str, str | Pretraining]
    judge: str
    data: str
    choose: str
    size: tuple[int, int]
    weak: str
    strong: str
    fill: Settings
    draw: Settings
    holes: int = 20
    maps: int = 4
    class_steps: int = 100
    precision: str = "32-true"
    passes: str = "float32"
    batch_size: int = 4


def tier(name: str, data: str = "data") -> Tier:
    """A tier by its name; `data` is the folder with `camvid`, or with `cityscapes`.

    Raises:
        RobustsegError: there is no such tier.
    """
    return tier_of(name, {"synthetic": _synthetic, "camvid": _camvid, "full": _full})(data)


def _trainings(
    architecture: str, data: str, recipe: Recipe, attack: str, warm_up: float
) -> dict[str, str | Pretraining]:
    """The three trainings of one network, which differ in the share of attacked images alone."""
    shares = dict(zip(ROLES, (0.0, 0.5, 1.0), strict=True))
    return {
        role: Pretraining(architecture, data, recipe, Adversary(attack, share, warm_up) if share else None)
        for role, share in shares.items()
    }


def _synthetic(_: str) -> Tier:
    size, text = (48, 96), "48x96"
    attack = "pgd(budget='linf:2/255', steps=2, keep='last')"
    recipe = Recipe(epochs=16, batch_size=4, crop=size, scale=(1.0, 1.0), learning_rate=3e-3, ema=0.9, check_every=16)
    streets = "streets(seed=0, scenes={}, frames=1, size='{}', split='{}')"
    return Tier(
        name="synthetic",
        protocol="made-up streets at 96x48, a few epochs: shows that it runs, claims nothing",
        networks=_trainings(
            "erfnet(classes='camvid', width=0.25)", streets.format(16, text, "train"), recipe, attack, 2
        ),
        judge="zoo:erfnet-streets",
        data=streets.format(4, text, "test"),
        choose=streets.format(4, text, "val"),
        size=size,
        weak=attack,
        strong="sea(budget='linf:2/255', steps=4)",
        fill=Settings(steps=10, step=0.02, coarse=2),
        draw=Settings(steps=10, step=0.02, coarse=2),
        holes=4,
        maps=1,
        class_steps=5,
    )


def _camvid(data: str) -> Tier:
    root = f"{data}/camvid"
    # pixels of each class in the training set: robustseg doctor --all
    pixels = "10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967"
    return Tier(
        name="camvid",
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
        strong=f"sea(budget='linf:4/255', steps=30, class_pixels=({pixels}))",
        fill=FILL,
        draw=DRAW,
        passes="bfloat16",  # so that records of studies/adversarial-camvid are these
    )


def _full(data: str) -> Tier:
    root, size = f"{data}/cityscapes", (512, 1024)
    attack = "pgd(budget='linf:4/255', steps=5, keep='last')"
    recipe = Recipe(epochs=400, batch_size=16, crop=(448, 448), scale=(0.25, 1.0), learning_rate=5e-4)
    network, labelled = (
        "smp('PSPNet', encoder='resnet50', classes='cityscapes')",
        f"cityscapes(root='{root}', split='train')",
    )
    return Tier(
        name="full",
        protocol="Cityscapes at 1024x512, trained on fine train, chosen on Lindau, reported on Frankfurt and Munster; one seed",
        networks=_trainings(network, labelled, recipe, attack, 20),
        judge="transformers('nvidia/segformer-b0-finetuned-cityscapes-1024-1024', classes='cityscapes')",
        data=f"cityscapes(root='{root}', split='frankfurt+munster')",
        choose=f"cityscapes(root='{root}', split='lindau')",
        size=size,
        weak=attack,
        strong="sea(budget='linf:4/255', steps=300)",
        fill=replace(FILL, budget="l2:42"),
        draw=replace(DRAW, budget="l2:188"),
        precision="bf16-mixed",
    )
