"""Depth from unlabelled video as a second task: what it adds to each step of the one loop.

A step sees a batch with labels and a batch of video of the same size, in one pass of the encoder, so batch norm sees both.
The video's loss is that of view synthesis (`robustseg.photometric`), for which a second network, here and not kept,
tells how the camera moved. In most of a training it only says where to begin: the frames are aligned from there (`robustseg.odometry`), and depths
searched about those that the network sees are labels besides (`robustseg.stereo`). One number, the weight lambda, makes every training of a
comparison: 0 is the control, whose encoder sees the video in batch norm and learns nothing from it; without video it is the single task.

Sources: Klingner, Bär, Fingscheidt, CVPR Workshops 2020; Zhou et al., CVPR 2017, and Godard et al., ICCV 2019 (motion).
"""

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from robustseg import registry
from robustseg.datasets.augment import Augmentation
from robustseg.geometry import disparity_to_depth, invert_pose, rigid_pose, shrink_intrinsics
from robustseg.networks.depth import MultiTask
from robustseg.odometry import TRACKING, align
from robustseg.photometric import SMALLER, ViewSynthesis, view_synthesis_loss
from robustseg.records import RobustsegError, SpecError
from robustseg.stereo import label_loss, search_depth
from robustseg.training.resumable import Batches, Remembered, identity
from robustseg.types import (
    Batch,
    Dataset,
    Depth,
    Images,
    Intrinsics,
    Logits,
    Mask,
    Network,
    PerImage,
    Pose,
    Sample,
    frozen,
)

log = logging.getLogger(__name__)

EXTRAS = ("previous", "next", "intrinsics")
"""What a sample of video must know besides its image."""

TURN_SCALE, SHIFT_SCALE = 0.01, 0.1
"""Factors on what the motion network answers: radians, and distances where inverse depth is 1 on average."""

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


class MotionNetwork(nn.Module):
    """How the camera moves from one frame to the next: strided convolutions on both, the mean of the answers over the image.

    Source: Zhou et al., CVPR 2017, figure 4 (pose); axis and angle as in Godard et al., ICCV 2019.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 6
        for channels, size in ((16, 7), (32, 5), (64, 3), (128, 3), (256, 3), (256, 3), (256, 3)):
            layers += [nn.Conv2d(before, channels, size, stride=2, padding=size // 2), nn.ReLU(inplace=True)]
            nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")  # type: ignore[arg-type]
            before = channels
        last = nn.Conv2d(before, 6, 1)
        # Almost at rest, where some pixels gain by any motion; further off none may, and at rest none can.
        for parameter in last.parameters():
            nn.init.normal_(parameter, std=0.002)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, first: Images, second: Images) -> Pose:
        """Poses `[b, 4, 4]` from the camera of the first frames to that of the second, in units of its own."""
        both = torch.cat([first, second], 1) * 4 - 2
        answers = self.layers(both).mean((2, 3))
        wide = answers.to(
            torch.promote_types(answers.dtype, torch.float32)
        )  # a matrix exponential wants no half precision
        turn, shift = wide.split(3, 1)
        return rigid_pose(TURN_SCALE * turn, SHIFT_SCALE * shift)


class Scene(NamedTuple):
    """What the networks make of video frames: the disparity (see `MultiTask.disparity`), and the cameras around them."""

    disparity: Tensor
    pose_previous: Pose
    pose_next: Pose
    intrinsics: Intrinsics


class Answers(NamedTuple):
    """What one step asks for: logits of the images with labels, if any are used, and the scene, if it is to be learned."""

    logits: Logits | None
    scene: Scene | None


class WithMotion(nn.Module):
    """A network with what learns beside it: all that a training with video moves.

    Args:
        network: trained in place. weight: see `DepthTask`.
        calibrated: whether the intrinsics are known; if not, one factor on the given focal length is learned.
    """

    def __init__(self, network: MultiTask, weight: float, *, calibrated: bool = True):
        super().__init__()
        self.network, self.weight, self.motion = network, weight, MotionNetwork().requires_grad_(weight > 0)
        self.focal = None if calibrated or not weight else nn.Parameter(torch.zeros(()))
        network.module.depth.requires_grad_(weight > 0)
        network.module.segmentation.requires_grad_(weight < 1)

    def forward(
        self, images: Images, frames: Images, previous: Images, following: Images, intrinsics: Intrinsics
    ) -> Answers:
        """Images with labels; frames of video, those before and after them, and their camera. All of one size."""
        if self.weight == 1:
            return Answers(None, self.scene(self.network.disparity(frames), frames, previous, following, intrinsics))
        logits, disparity = self.network.both(images, frames, self.weight)
        if disparity is None:
            return Answers(logits, None)
        return Answers(logits, self.scene(disparity, frames, previous, following, intrinsics))

    def scene(
        self,
        disparity: Tensor,
        frames: Images,
        previous: Images,
        following: Images,
        intrinsics: Intrinsics,
    ) -> Scene:
        """The disparity of frames with the cameras around them."""
        # Both pairs in the order of time: to the network they are one kind of motion.
        before, after = self.motion(torch.cat([previous, frames]), torch.cat([frames, following])).chunk(2)
        if self.focal is not None:
            zoom = self.focal.exp()
            intrinsics = intrinsics @ torch.stack([zoom, zoom, torch.ones_like(zoom)]).diag()
        return Scene(disparity, invert_pose(before), after, intrinsics)


class Uncalibrated:
    """Video of an unknown camera with a first guess: square pixels, as far away as the image is wide, axis in the middle."""

    def __init__(self, data: Dataset):
        self._data, self.spec, self.label_space, self.ids = data, data.spec, data.label_space, data.ids

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        sample = self._data[index]
        h, w = sample.image.shape[-2:]
        guess = torch.tensor([[w, 0, (w - 1) / 2], [0, w, (h - 1) / 2], [0, 0, 1]], dtype=torch.float32)
        return dataclasses.replace(sample, extras={**sample.extras, "intrinsics": guess})


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


def frames_of(video: Batch) -> tuple[Tensor, ...]:
    """Frames, those before and after them, and their intrinsics."""
    frames = (video.images, *(video.extras[name] for name in EXTRAS[:2]))
    return *(x.contiguous(memory_format=torch.channels_last) for x in frames), video.extras["intrinsics"]


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
