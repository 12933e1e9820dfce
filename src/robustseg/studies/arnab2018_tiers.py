"""Where the study of Arnab et al. 2018 is run: networks, images, attacks; by tier, or networks and images of the user."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from robustseg.core.errors import RobustsegError
from robustseg.report.words import short_names
from robustseg.studies.arnab2018_evidence import Attacks
from robustseg.studies.pretraining import Pretraining
from robustseg.studies.study import tier_of
from robustseg.training import Recipe

SEEDS = 3
PIXELS = (10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967)
"""Of each class in CamVid's training set: robustseg doctor --all."""


@dataclass(frozen=True)
class Tier:
    """Where the study is run.

    Args:
        name: of the tier. protocol: what must be said beside each figure.
        networks: name -> spec, or how to train it; further seeds of NAME are `NAME-seed1` and so on. Others are put
            around the first.
        data: reported on. choose: to choose the best weights by. size: (height, width), None: as they are.
        attacks: what is tried.
        widths: names of one architecture by ascending width.
        images: evenly spread, None: all. few: of these, for SEA. audited: of these, for the audit of the CRF.
        precision: of training. batch_size: images at a time.
    """

    name: str
    protocol: str
    networks: dict[str, str | Pretraining]
    data: str
    choose: str
    size: tuple[int, int] | None
    attacks: Attacks
    widths: tuple[str, ...] = field(default=())
    images: int | None = None
    few: int | None = None
    audited: int = 2
    precision: str = "32-true"
    batch_size: int = 4

    @property
    def several(self) -> tuple[str, ...]:
        """Networks that are multi-scale, or have a CRF, themselves."""
        specs = {name: given if isinstance(given, str) else given.architecture for name, given in self.networks.items()}
        return tuple(name for name, spec in specs.items() if "multiscale(" in spec or "crf(" in spec)


def tier(name: str, data: str = "data", *, networks: Sequence[str] = (), size: tuple[int, int] | None = None) -> Tier:
    """A tier by its name, or its attacks on other networks and images.

    Args:
        name: synthetic, camvid or full.
        data: the folder with `camvid`, or with `cityscapes`; or a data spec, which is reported on in place of the tier's.
        networks: specs, or names of the tier's networks; none: all of the tier's. size: in place of the tier's; of a data
            spec, None is the images' own.

    Raises:
        RobustsegError: there is no such tier, or the tier needs networks.
    """
    own_data = "(" in data
    study = tier_of(name, {"synthetic": _synthetic, "camvid": _camvid, "full": _full})("data" if own_data else data)
    if networks:
        short = short_names([spec for spec in networks if spec not in study.networks])
        chosen = {short.get(spec, spec): study.networks.get(spec, spec) for spec in networks}
        study = replace(study, networks=chosen, widths=tuple(n for n in study.widths if n in chosen))
        if short or own_data:
            study = replace(study, protocol=f"attacks of tier {name}; networks and images that the user named")
    if own_data:
        study = replace(study, data=data, size=size)
    if not study.networks:
        raise RobustsegError(f"expected networks for tier {name}, got none; try --network SPEC, several times")
    return study if size is None else replace(study, size=size)


def _synthetic(_: str) -> Tier:
    size, text = (48, 96), "48x96"
    streets = "streets(seed=0, scenes={}, frames=1, size='{}', split='{}')"

    def trained(width: float, seed: int = 0) -> Pretraining:
        recipe = Recipe(
            epochs=8, batch_size=4, crop=size, scale=(1.0, 1.0), learning_rate=3e-3, ema=0.9, check_every=8, seed=seed
        )
        return Pretraining(f"erfnet(classes='camvid', width={width})", streets.format(16, text, "train"), recipe)

    return Tier(
        name="synthetic",
        protocol="made-up streets at 96x48, a few epochs: shows that it runs, claims nothing",
        networks={"erfnet": "zoo:erfnet-streets", "erfnet-quarter": trained(0.25), "erfnet-eighth": trained(0.125)},
        data=streets.format(4, text, "test"),
        choose=streets.format(4, text, "val"),
        size=size,
        attacks=Attacks(
            single=(8,), iterative=(1, 8), sea=(1,), sea_steps=4, around=(8,), transfer=8, steps=4, draws=2
        ),
        widths=("erfnet-eighth", "erfnet-quarter", "erfnet"),
        few=2,
        audited=1,
    )


def _camvid(data: str) -> Tier:
    root = f"{data}/camvid"

    def trained(architecture: str, seed: int = 0) -> Pretraining:
        recipe = Recipe(epochs=30, batch_size=8, scale=(0.45, 1.0), seed=seed)
        return Pretraining(architecture, f"camvid(root='{root}', split='fit')", recipe)

    architectures = {
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
    networks: dict[str, str | Pretraining] = {name: trained(spec) for name, spec in architectures.items()}
    for name in ("erfnet", "fcn8s"):
        networks |= {f"{name}-seed{seed}": trained(architectures[name], seed) for seed in range(1, SEEDS)}
    return Tier(
        name="camvid",
        protocol="240x180, test frames spread evenly over Seq05VD (a new drive) and 0001TP (a seen one); all networks trained from nothing by one "
        "recipe, three seeds of erfnet and fcn8s, one of the others; what is around a network is around erfnet, seed 0",
        networks=networks,
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
        widths=("erfnet-eighth", "erfnet-quarter", "erfnet-half", "erfnet"),
        images=20,
        few=10,
        precision="bf16-mixed",
    )


def _full(data: str) -> Tier:
    eps = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
    return Tier(
        name="full",
        protocol="Cityscapes val at 1024x512",
        networks={},
        data=f"cityscapes(root='{data}/cityscapes', split='val')",
        choose="",
        size=(512, 1024),
        attacks=Attacks(single=eps, iterative=eps, sea=(0.5, 1), sea_steps=300, around=eps[2:], transfer=8),
        few=50,
        audited=8,
        batch_size=1,
    )
