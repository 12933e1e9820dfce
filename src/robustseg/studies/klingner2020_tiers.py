"""Where the study of Klingner et al. 2020 is run: data, video, trainings, and what images are changed by."""

from dataclasses import dataclass, replace

from robustseg.studies.klingner2020_evidence import KINDS, Changes, name_of, sweep_kind
from robustseg.studies.legacy import SEEDS, tier_of
from robustseg.studies.pretraining import Pretraining
from robustseg.training import Recipe
from robustseg.training.multitask import DepthTask


@dataclass(frozen=True)
class Tier:
    """Where the study is run.

    Args:
        name: of the tier. protocol: what must be said beside each figure.
        architecture: spec of the network, with a depth decoder. recipe: of every training, but for the seed.
        labelled: trained on. choose: to choose the best weights by. report: reported on. images: how many of those, spread evenly.
        size: (height, width) of what is reported on.
        video: trained on. held: the video that is held out, with intrinsics and poses. frame: (height, width) of both where depth and
            poses are measured.
        depth: frames with true depth, by a name of `klingner2020_claims.DEPTHS`.
        changes: what images are changed by. zoom: range of the random factor on the video's size.
        weight: lambda of the multi-task networks. weights: of the sweep, with one seed but for those in `seeded`.
        seeds: of each kind, and of the weights in `seeded`.
        precision: of training. passes: precision of attacks, see `Conditions`. batch_size: images at a time.
    """

    name: str
    protocol: str
    architecture: str
    recipe: Recipe
    labelled: str
    choose: str
    report: str
    images: int
    size: tuple[int, int]
    video: str
    held: str
    frame: tuple[int, int]
    depth: dict[str, str]
    changes: Changes
    zoom: tuple[float, float] = (1.0, 1.0)
    weight: float = 0.1
    weights: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    seeds: int = SEEDS
    seeded: tuple[float, ...] = ()
    precision: str = "32-true"
    passes: str = "float32"
    batch_size: int = 4

    @property
    def networks(self) -> dict[str, Pretraining]:
        """How each network of the study is trained, by its name."""
        tasks = {"single": None, "control": self._task(0.0), "multi": self._task(self.weight)}
        made = {name_of(kind, seed): self._training(tasks[kind], seed) for kind in KINDS for seed in range(self.seeds)}
        for w in (w for w in self.weights if w not in (0.0, self.weight)):
            for seed in range(self.seeds if w in self.seeded else 1):
                made[name_of(sweep_kind(w), seed)] = self._training(self._task(w), seed)
        return made

    def _task(self, weight: float) -> DepthTask:
        return DepthTask(self.video, weight, scale=self.zoom)

    def _training(self, task: DepthTask | None, seed: int) -> Pretraining:
        return Pretraining(self.architecture, self.labelled, replace(self.recipe, seed=seed), depth=task)


def tier(name: str, data: str = "data") -> Tier:
    """A tier by its name; `data` is the folder with `camvid` and `video`, or with `cityscapes`, `kitti_raw` and `kitti_odometry`.

    Raises:
        RobustsegError: there is no such tier.
    """
    tiers = {
        "synthetic": _synthetic,
        "camvid": _camvid,
        "camvid-own-video": _camvid_own_video,
        "camvid-imagenet": _camvid_imagenet,
        "full": _full,
    }
    return tier_of(name, tiers)(data)


def _steps(count: int, size: str) -> dict[str, str]:
    """FGSM, BIM and PGD of so many steps of this size."""
    return {
        "FGSM": "fgsm(budget='linf:{:g}/255')",
        "BIM": f"ifgsm(budget='linf:{{:g}}/255', steps={count}, step_size='{size}')",
        "PGD": f"pgd(budget='linf:{{:g}}/255', steps={count}, step_size='{size}', keep='last')",
    }


def _synthetic(_: str) -> Tier:
    size, text = (48, 96), "48x96"
    streets = f"streets(scenes={{}}, frames={{}}, size='{text}', split='{{}}')"
    video = f"streets(scenes={{}}, frames={{}}, size='{text}', split='{{}}', neighbours=True)"
    strengths = (4.0, 8.0, 32.0)
    return Tier(
        name="synthetic",
        protocol="made-up streets at 96x48, a few epochs, one seed: shows that it runs, claims nothing",
        architecture="multitask(encoder='erfnet', width=0.25)",
        recipe=Recipe(
            epochs=30, batch_size=4, crop=size, scale=(1.0, 1.0), learning_rate=2e-3, ema=0.9, check_every=30
        ),
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


def _camvid(data: str) -> Tier:
    root, video = f"{data}/camvid", f"{data}/video"
    # intrinsics of rectified KITTI frames of this size, assumed: the clip comes without
    town = f"clip('{video}/kitti_test984.mp4', intrinsics=(721.5377, 721.5377, 609.5593, 172.854), size='131x434')"
    drive = f"clip('{video}/kitti_odometry_06/image_0', intrinsics=(707.0912, 707.0912, 601.8873, 183.1104), size='131x434')"
    return Tier(
        name="camvid",
        protocol="CamVid 'fit' (334 frames) and video of KITTI (a town, 268 frames, intrinsics assumed; odometry 06, 51 frames, grey) at 434x131, crops of 192x128; "
        "12 test frames spread evenly over Seq05VD (a new drive) and 0001TP (a seen one) at 240x180; BIM and PGD of 10 steps of 4/255, SEA of 3 x 10; "
        "held out: odometry b, a motorway ramp; ERFNet's encoder at half its width from scratch, where the paper has ResNet-18 from ImageNet",
        architecture="multitask(encoder='erfnet', width=0.5)",
        recipe=Recipe(epochs=24, batch_size=8, crop=(128, 192), scale=(0.45, 0.8), check_every=6, ema=0.995),
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


def _camvid_own_video(data: str) -> Tier:
    """As `camvid`, with video of the domain of the labels, so that batch norm sees one domain, and most of the encoder's gradient from depth."""
    return replace(
        _camvid(data),
        name="camvid-own-video",
        protocol="CamVid 'fit' (334 frames) and CamVid's own 'val' as video without its labels (101 frames at 15 Hz of a drive that the labels know, in a gap of "
        "them; focal length learned) at 240x180, enlarged by 1 to 1.6, crops of 192x128; all else as in the tier camvid, whose networks 'single' are trained alike",
        video=f"clip('{data}/camvid/val', size='180x240')",
        zoom=(1.0, 1.6),
        weight=0.9,
        weights=(0.0, 0.9),
        seeded=(),
    )


def _camvid_imagenet(data: str) -> Tier:
    """As `camvid`, with an encoder that ImageNet has taught, as the paper's, and most of its gradient from depth."""
    known = _camvid(data)
    return replace(
        known,
        name="camvid-imagenet",
        protocol="as the tier camvid (labels of CamVid 'fit', video of KITTI, 12 test frames at 240x180), but for the encoder, EfficientNet-lite0 from ImageNet, "
        "where the paper has ResNet-18 from ImageNet, and 12 epochs",
        architecture="multitask(encoder='tf_efficientnet_lite0', width=0.5, encoder_weights='imagenet')",
        recipe=replace(known.recipe, epochs=12),
        weight=0.9,
        weights=(0.0, 0.9),
        seeded=(),
    )


def _full(data: str) -> Tier:
    root = f"{data}/cityscapes"
    return Tier(
        name="full",
        protocol="Cityscapes fine train and KITTI raw, the schedule of the authors' later code, chosen on Lindau, reported on 100 frames of Frankfurt "
        "and Munster at 1024x512; held out: KITTI odometry 09; ResNet-18 from ImageNet, as the paper's",
        architecture="multitask(encoder='resnet18', classes='cityscapes', encoder_weights='imagenet')",
        recipe=Recipe(
            epochs=20, batch_size=6, crop=(192, 640), scale=(0.52, 0.75), learning_rate=1e-4, weight_decay=0.0
        ),
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
