"""Depth from unlabelled video, beside labels or alone.

A step sees a batch with labels and a batch of video of the same size in one pass of the encoder, so batch norm sees both.
The video's loss is that of view synthesis (`robustseg.depth.photometric`), for which a second network, which is not kept,
estimates how the camera moved. In most of a training this estimate is only the start: the frames are aligned from there
(`robustseg.depth.odometry`), and depths searched near those of the network are additional labels (`robustseg.depth.stereo`).
One number, the weight lambda, covers every training of a comparison: 0 is the control, whose encoder sees the video in batch
norm and learns nothing from it; without video it is the single task.

Sources: Klingner, Bär, Fingscheidt, CVPR Workshops 2020; Zhou et al., CVPR 2017, and Godard et al., ICCV 2019 (motion).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core import registry
from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.types import (
    Batch,
    Dataset,
    Depth,
    Images,
    Mask,
    Network,
    PerImage,
    Pose,
    Sample,
    frozen,
)
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.triplets import EXTRAS, Uncalibrated, frames_of
from robustseg.depth.geometry import disparity_to_depth
from robustseg.depth.odometry import TRACKING, align
from robustseg.depth.photometric import SMALLER, Views, ViewSynthesis, view_synthesis_loss
from robustseg.depth.stereo import label_loss, search_depth
from robustseg.networks.depth import MultiTask
from robustseg.networks.motion import SHIFT_SCALE, TURN_SCALE, Answers, Scene, WithMotion
from robustseg.training.labels import Labels
from robustseg.training.resumable import Batches, Remembered, layer_draws
from robustseg.training.task import HeldOut, Loss, Setup, Task

UNMASKED = 0.1
"""The share of a training, from its start, in which auto-masking leaves no pixel out.

It keeps the pixels that the motion found so far explains better than rest does. Of a motion that is still a guess those are
the ones that happen to agree with it, so a wrong guess is confirmed, and rest is hardly left. Once the motion is about right,
the pixels that are left out are those that should be. Only from then on, too, is it found by aligning the frames, and is depth searched.
"""
ROWS = 96
"""Frames of twice so many pixels or more along their shorter side are halved, until they have less, before they are aligned and searched."""
ALIGNMENT_WEIGHT = 0.01
"""Of what the motion network lacks to the motion found by aligning, in the loss."""


@dataclass(frozen=True)
class DepthTask:
    """Depth from video beside the labels.

    Args:
        video: data spec of frames with their neighbours, such as "clip('drive.mp4')" or "streets(neighbours=True)".
        weight: lambda, 0 to 1: into the encoder flows so much of the gradient from depth and `1 - weight` of that from
            the labels; the decoders learn their own task in full. 0: the control, video counts in batch norm alone.
            1: depth alone; no label and no labelled image is used.
        moving: names of classes, such as "car", whose pixels view synthesis, aligning and search leave out where the network
            itself sees them.
        scale: range of the random factor on the size of the frames, which the video's spec gives; all else is done to them as
            to the labelled images.
    """

    video: str
    weight: float = 0.1
    moving: tuple[str, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise RobustsegError(
                f"expected a weight of depth of 0 (the control) to 1 (depth alone), got {self.weight}; try 0.1"
            )
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise RobustsegError(
                f"expected 0 < lowest <= highest scale of video, got {self.scale[0]} and {self.scale[1]}; try 1 and 1.2"
            )


class DepthFromVideo(Task):
    """Learn depth from video, beside labels or alone: its batches, the motion network, and the loss of view synthesis.

    Args:
        setup: of the training; the network is a `MultiTask`. depth: what is learned from which video.
        labels: the task of the labels, of the same setup; None: depth alone, and the held-out data are video.

    Attributes:
        video_batches: the video of each step. trained: the network with what learns beside it.

    Raises:
        RobustsegError: the network has no depth decoder, the crop is no multiple of what the encoder halves to, or a class
            that moves is none of the network's. SpecError: as the video's spec.
    """

    trained: WithMotion

    def __init__(self, setup: Setup, depth: DepthTask, labels: Labels | None):
        network, _, _, recipe, fabric = setup
        if not isinstance(network, MultiTask):
            raise RobustsegError(
                f"expected a network with a depth decoder, got '{network.spec}'; try multitask(encoder='resnet18')"
            )
        _require_multiples(recipe.crop, network)
        unknown = [name for name in depth.moving if name not in network.label_space.names]
        if unknown:
            known = ", ".join(network.label_space.names)
            raise SpecError(f"expected classes of '{network.spec}' that move, got '{unknown[0]}'; try {known}")
        augment = Augmentation(recipe.crop, depth.scale, recipe.flip, recipe.colour)
        video: Dataset = registry.build("data", depth.video)
        _require_large(video, augment)
        self.setup, self.depth, self.labels = setup, depth, labels
        self.calibrated = not len(video) or "intrinsics" in video[0].extras
        self.video_batches = Batches(
            self._known(video),
            augment,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            fabric=fabric,
            extras=EXTRAS,
        )
        self.batches = labels.batches if labels else self.video_batches
        self.uncounted_passes = 4.0 if labels else 2.0  # of the images with labels, if any, and of the frames
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            self.trained = WithMotion(network, depth.weight, calibrated=self.calibrated)

    def _known(self, video: Dataset) -> Dataset:
        return video if self.calibrated else Uncalibrated(video)

    @property
    def notes(self) -> dict[str, Any]:
        notes = self.labels.notes if self.labels else {"recipe": dataclasses.asdict(self.setup.recipe)}
        return {**notes, "recipe": {**notes["recipe"], "depth": dataclasses.asdict(self.depth)}}

    def network_in(self, trained: nn.Module) -> MultiTask:
        """The network without the motion network."""
        assert isinstance(trained, WithMotion)
        return trained.network

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Loss:
        """The losses of labels and video; one pass of the encoder sees both."""
        images, video = batch.images, batch
        if self.labels:
            images = self.labels.images(batch, step)
            video = self.video_batches[step].to(self.setup.fabric.device)
        with layer_draws(self.setup.recipe.seed, step, self.setup.fabric):
            answers: Answers = model(images, *frames_of(video))
        lost = Loss(torch.zeros((), device=self.setup.fabric.device), {}, [])
        if self.labels and answers.logits is not None:
            lost = self.labels.loss_of(answers.logits, batch)
        if answers.scene is None:
            return lost
        steps = self.batches.per_epoch * self.setup.recipe.epochs
        view = self.view(self.setup.network, answers.scene, video, progress=step / steps)
        loss = view.loss.mean()
        figures = {"depth_loss": loss, "masked": view.masked_share.mean()}
        return Loss(lost.loss + loss, figures, [*lost.outputs, (video.ids, view.loss)])

    def view(self, network: Network, scene: Scene, video: Batch, *, progress: float = 1.0) -> ViewSynthesis:
        """How well the scene explains the frames.

        At first with the motion that the network tells, which learns from that. Once it is about right, with what aligning the frames
        makes of it, as the network answers alike for frames that move unlike, and depth would make up for it. Where gradients flow the loss has
        two things more from then on: what the depth lacks to that found by searching about it (`robustseg.depth.stereo`), in place of smaller images,
        and what the motion network lacks to the motion found.

        Args:
            network: that finds what moves. progress: of the training, 0 to 1, see `UNMASKED`.
        """
        moving = self._moving(network, video.images) if self.depth.moving else None
        told = torch.cat([scene.pose_previous, scene.pose_next])
        if progress < UNMASKED:
            return self._explained(scene, video, told, moving, auto_mask=False, smaller=SMALLER)
        small = _Small.of(scene, video, moving)
        found = small.aligned(told.detach())
        view = self._explained(scene, video, found, moving)
        if not torch.is_grad_enabled():
            return view
        lacks = small.lacks(found) + ALIGNMENT_WEIGHT * _apart(told, found).view(2, -1).sum(0)
        return view._replace(loss=view.loss + lacks)

    def _explained(
        self,
        scene: Scene,
        video: Batch,
        poses: Tensor,
        moving: Mask | None,
        *,
        auto_mask: bool = True,
        smaller: Sequence[int] = (),
    ) -> ViewSynthesis:
        previous, following = (video.extras[name] for name in EXTRAS[:2])
        before, after = poses.chunk(2)
        return view_synthesis_loss(
            scene.disparity,
            video.images,
            previous,
            following,
            before,
            after,
            scene.intrinsics,
            moving=moving,
            auto_mask=auto_mask,
            smaller=smaller,
        )

    def _moving(self, network: Network, frames: Images) -> Mask:
        movers = [i for i, name in enumerate(network.label_space.names) if name in self.depth.moving]
        with frozen(network), torch.no_grad():
            return torch.isin(network.predict(frames), torch.tensor(movers, device=frames.device))

    def problem(self, figures: Sequence[Mapping[str, float]]) -> str:
        """No step of an epoch found a pixel that motion explains better than standing still."""
        if {step.get("masked") for step in figures} != {1.0}:
            return ""
        return (
            f"expected video of a moving camera, got '{self.depth.video}', in which no pixel of a whole epoch is explained "
            "better by depth than by standing still; try a drive, or a larger step between its frames"
        )

    def measure(self, trained: nn.Module) -> HeldOut:
        """What the labels measure; of depth alone the loss of view synthesis on held-out video, the lowest of which ranks highest."""
        if self.labels:
            return self.labels.measure(self.network_in(trained))
        lost = self._held_out_loss(trained)
        return HeldOut({"miou": math.nan, "depth_loss": lost}, rank=-lost)

    def _held_out_loss(self, trained: nn.Module) -> float:
        """The mean over frames, cut at the right and bottom to what the encoder halves to."""
        divisor = self.network_in(trained).expects.divisor or 1
        samples, losses = Remembered(self._known(self.setup.holdout), EXTRAS), []
        for index in range(len(samples)):
            video = Batch.of([_cut(samples[index], divisor)]).to(self.setup.fabric.device)
            losses.append(float(self.look(trained, video).view.loss))
        return sum(losses) / len(losses)

    def pictures(self, trained: nn.Module) -> dict[str, Tensor]:
        """Frames, their disparity (near is bright), both neighbours warped onto them (black: out of view), and masked pixels."""
        if not self.depth.weight:
            return {}
        video = self.video_batches[0].to(self.setup.fabric.device)
        scene, view = self.look(trained, video)
        warps = {"warped previous": view.previous, "warped next": view.following}
        return {
            "frame": video.images,
            **{name: warp.images * warp.valid.unsqueeze(1) for name, warp in warps.items()},
            "disparity": (scene.disparity / scene.disparity.amax((1, 2), keepdim=True)).unsqueeze(1),
            "masked": view.masked.float().unsqueeze(1),
        }

    def look(self, trained: nn.Module, video: Batch) -> "Look":
        """The scene that a trained network sees in video, and how well it explains the frames; without gradients."""
        assert isinstance(trained, WithMotion)
        with frozen(trained), torch.no_grad():
            scene = trained.scene(trained.network.disparity(video.images), *frames_of(video))
            return Look(scene, self.view(trained.network, scene, video))


class Look(NamedTuple):
    """A scene, and how well it explains the frames."""

    scene: Scene
    view: ViewSynthesis


class _Small(NamedTuple):
    """Frames with their depth, small enough for aligning and searching, which pass over them many times (`ROWS`)."""

    views: Views
    depth: Depth

    @classmethod
    def of(cls, scene: Scene, video: Batch, moving: Mask | None) -> "_Small":
        part = 1
        while min(video.images.shape[-2:]) >= 2 * part * ROWS:
            part *= 2
        previous, following = (video.extras[name] for name in EXTRAS[:2])
        views = Views.of(video.images, previous, following, scene.intrinsics.detach(), moving).smaller(part)
        whole = F.interpolate(
            scene.disparity.unsqueeze(1), video.images.shape[-2:], mode="bilinear", align_corners=False
        )
        return cls(views, disparity_to_depth(F.avg_pool2d(whole, part)).squeeze(1))

    def aligned(self, poses: Pose) -> Pose:
        """The poses to both neighbours, those before first, found by aligning."""
        known = self.depth.detach().masked_fill(~self.views.counted, torch.nan)  # NaN does not count
        twice = (x.repeat(2, *(1,) * (x.dim() - 1)) for x in (self.views.images, known, self.views.intrinsics))
        images, depth, intrinsics = twice
        return align(images, torch.cat(self.views.neighbours), depth, poses, intrinsics, steps=TRACKING, believed=False)

    def lacks(self, poses: Tensor) -> PerImage:
        """How far the depth is from that found by searching about it."""
        images, neighbours, intrinsics, counted = self.views
        searched = search_depth(images, neighbours, self.depth.detach(), poses.chunk(2), intrinsics)
        return label_loss(self.depth, searched._replace(clear=searched.clear & counted))


def _apart(told: Pose, found: Pose) -> Tensor:
    """How far poses are from those that were found, `[b]`, in units of what the motion network answers; no gradient in the latter."""
    turn = told[:, :3, :3] @ found[:, :3, :3].mT
    axis = torch.stack([turn[:, i, j] - turn[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], 1) / 2
    shift = told[:, :3, 3] - found[:, :3, 3]
    return (axis / TURN_SCALE).abs().mean(1) + (shift / SHIFT_SCALE).abs().mean(1)


def _require_multiples(crop: tuple[int, int], network: MultiTask) -> None:
    divisor = network.expects.divisor or 1
    if any(side % divisor for side in crop):
        near = "x".join(str(max(divisor, round(side / divisor) * divisor)) for side in crop)
        raise RobustsegError(
            f"expected a crop whose sides are multiples of {divisor} for depth, got {crop[0]}x{crop[1]}; try {near}"
        )


def _require_large(video: Dataset, augment: Augmentation) -> None:
    """Frames smaller than the crop would be filled up with what no camera saw."""
    if not len(video):
        return
    sides = video[0].image.shape[-2:]
    smallest = [round(side * augment.scale[0]) for side in sides]
    if any(side < crop for side, crop in zip(smallest, augment.crop, strict=True)):
        seen, crop = ("x".join(map(str, size)) for size in (smallest, augment.crop))
        raise RobustsegError(
            f"expected video at least as large as the crop, {crop}, got {seen}; try a larger size= or --video-scale"
        )


def _cut(sample: Sample, divisor: int) -> Sample:
    height, width = (side // divisor * divisor for side in sample.image.shape[-2:])
    frames = {name: sample.extras[name][:, :height, :width] for name in EXTRAS[:2]}
    extras = {**frames, "intrinsics": sample.extras["intrinsics"]}
    return Sample(sample.image[:, :height, :width], sample.labels[:height, :width], sample.id, extras)
