"""Depth from unlabelled video as a second task: what it adds to each step of the one loop.

A step sees a batch with labels and a batch of video of the same size, in one pass of the encoder, so batch norm sees both.
The video's loss is that of view synthesis (`robustseg.photometric`), for which a second network, here and not kept,
tells how the camera moved. In most of a training it only says where to begin: the frames are aligned from there (`robustseg.odometry`), and depths
searched about those that the network sees are labels besides (`robustseg.stereo`). One number, the weight lambda, makes every training of a
comparison: 0 is the control, whose encoder sees the video in batch norm and learns nothing from it; without video it is the single task.

Sources: Klingner, Bär, Fingscheidt, CVPR Workshops 2020; Zhou et al., CVPR 2017, and Godard et al., ICCV 2019 (motion).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from robustseg.core import registry
from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.types import (
    Batch,
    Dataset,
    Depth,
    Images,
    Intrinsics,
    Mask,
    Network,
    PerImage,
    Pose,
    Sample,
    frozen,
)
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.triplets import EXTRAS, Uncalibrated, frames_of
from robustseg.depth.geometry import disparity_to_depth, shrink_intrinsics
from robustseg.depth.odometry import TRACKING, align
from robustseg.depth.photometric import SMALLER, ViewSynthesis, view_synthesis_loss
from robustseg.depth.stereo import label_loss, search_depth
from robustseg.networks.depth import MultiTask
from robustseg.networks.motion import SHIFT_SCALE, TURN_SCALE, Scene, WithMotion
from robustseg.training.resumable import Batches, Remembered, identity

log = logging.getLogger(__name__)


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


class SecondTask:
    """The video of a training: its batches, what is trained with it, and what it loses.

    Args:
        task: what is learned from which video. network: that learns it beside its labels.
        augment, batch_size, seed, fabric: of the training.

    Attributes:
        batches: of video. trained: the network with what learns beside it. identity: of the video.

    Raises:
        RobustsegError: the network has no depth decoder, the crop is no multiple of what the encoder halves to, or a class
            that moves is none of the network's. SpecError: as the video's spec.
    """

    def __init__(
        self, task: DepthTask, network: Network, *, augment: Augmentation, batch_size: int, seed: int, fabric: Fabric
    ):
        if not isinstance(network, MultiTask):
            raise RobustsegError(
                f"expected a network with a depth decoder, got '{network.spec}'; try multitask(encoder='resnet18')"
            )
        _require_multiples(augment.crop, network)
        augment = augment._replace(scale=task.scale)
        unknown = [name for name in task.moving if name not in network.label_space.names]
        if unknown:
            known = ", ".join(network.label_space.names)
            raise SpecError(f"expected classes of '{network.spec}' that move, got '{unknown[0]}'; try {known}")
        video: Dataset = registry.build("data", task.video)
        _require_large(video, augment)
        self.task, self.identity = task, identity(video)
        self.calibrated = not len(video) or "intrinsics" in video[0].extras
        self.batches = Batches(
            self._known(video), augment, batch_size=batch_size, seed=seed, fabric=fabric, extras=EXTRAS
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.trained = WithMotion(network, task.weight, calibrated=self.calibrated)

    @property
    def alone(self) -> bool:
        """Whether no label is used."""
        return self.task.weight == 1

    @property
    def passes(self) -> float:
        """Forwards and backwards of the network for each image of a batch: its own, and those of a frame."""
        return 2.0 if self.alone else 4.0

    def _known(self, video: Dataset) -> Dataset:
        return video if self.calibrated else Uncalibrated(video)

    def view(self, network: Network, scene: Scene, video: Batch, *, progress: float = 1.0) -> ViewSynthesis:
        """How well the scene explains the frames.

        At first with the motion that the network tells, which learns from that. Once it is about right, with what aligning the frames
        makes of it, as the network answers alike for frames that move unlike, and depth would make up for it. Where gradients flow the loss has
        two things more from then on: what the depth lacks to that found by searching about it (`robustseg.stereo`), in place of smaller images,
        and what the motion network lacks to the motion found.

        Args:
            network: that finds what moves. progress: of the training, 0 to 1, see `UNMASKED`.
        """
        moving = self._moving(network, video.images) if self.task.moving else None
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
        movers = [i for i, name in enumerate(network.label_space.names) if name in self.task.moving]
        with frozen(network), torch.no_grad():
            return torch.isin(network.predict(frames), torch.tensor(movers, device=frames.device))

    def require_motion(self, masked: Sequence[float | None], *, first: bool) -> None:
        """Say where no step of an epoch found a pixel that motion explains better than rest, so that there is nothing to learn.

        Raises:
            RobustsegError: in the first epoch, as with a camera that stands still; later it is logged.
        """
        if set(masked) != {1.0}:
            return
        sentence = (
            f"expected video of a moving camera, got '{self.task.video}', in which no pixel of a whole epoch is explained "
            "better by depth than by standing still; try a drive, or a larger step between its frames"
        )
        if first:
            raise RobustsegError(sentence)
        log.warning("%s, or a smaller learning rate", sentence)

    def measure(self, trained: WithMotion, holdout: Dataset, fabric: Fabric) -> float:
        """The mean loss of view synthesis on held-out video, cut at the right and bottom to what the encoder halves to."""
        samples, losses = Remembered(self._known(holdout), EXTRAS), []
        for index in range(len(samples)):
            video = Batch.of([_cut(samples[index], trained.network)]).to(fabric.device)
            losses.append(float(self.look(trained, video)[1].loss))
        return sum(losses) / len(losses)

    def look(self, trained: WithMotion, video: Batch) -> tuple[Scene, ViewSynthesis]:
        """What a trained network makes of video; nothing learns."""
        with frozen(trained), torch.no_grad():
            scene = trained.scene(trained.network.disparity(video.images), *frames_of(video))
            return scene, self.view(trained.network, scene, video)


class _Small(NamedTuple):
    """Frames, what is known of them and what moves, small enough for aligning and searching, which pass over them many times (`ROWS`)."""

    images: Images
    neighbours: tuple[Images, Images]
    depth: Depth
    intrinsics: Intrinsics
    moving: Mask

    @classmethod
    def of(cls, scene: Scene, video: Batch, moving: Mask | None) -> "_Small":
        part = 1
        while min(video.images.shape[-2:]) >= 2 * part * ROWS:
            part *= 2
        images, previous, following = (
            F.avg_pool2d(x, part) for x in (video.images, *(video.extras[n] for n in EXTRAS[:2]))
        )
        whole = F.interpolate(
            scene.disparity.unsqueeze(1), video.images.shape[-2:], mode="bilinear", align_corners=False
        )
        depth = disparity_to_depth(F.avg_pool2d(whole, part)).squeeze(1)
        if moving is None:
            moving = torch.zeros_like(video.images[:, 0], dtype=torch.bool)
        moving = F.max_pool2d(moving.to(images).unsqueeze(1), part).squeeze(1) > 0
        return cls(images, (previous, following), depth, shrink_intrinsics(scene.intrinsics.detach(), part), moving)

    def aligned(self, poses: Pose) -> Pose:
        """The poses to both neighbours, those before first, found by aligning."""
        known = self.depth.detach().masked_fill(self.moving, torch.nan)  # what is no number does not count
        twice = (x.repeat(2, *(1,) * (x.dim() - 1)) for x in (self.images, known, self.intrinsics))
        images, depth, intrinsics = twice
        return align(images, torch.cat(self.neighbours), depth, poses, intrinsics, steps=TRACKING, believed=False)

    def lacks(self, poses: Tensor) -> PerImage:
        """What the depth lacks to that found by searching about it."""
        searched = search_depth(self.images, self.neighbours, self.depth.detach(), poses.chunk(2), self.intrinsics)
        return label_loss(self.depth, searched._replace(clear=searched.clear & ~self.moving))


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


def _cut(sample: Sample, network: MultiTask) -> Sample:
    divisor = network.expects.divisor or 1
    height, width = (side // divisor * divisor for side in sample.image.shape[-2:])
    frames = {name: sample.extras[name][:, :height, :width] for name in EXTRAS[:2]}
    extras = {**frames, "intrinsics": sample.extras["intrinsics"]}
    return Sample(sample.image[:, :height, :width], sample.labels[:height, :width], sample.id, extras)
