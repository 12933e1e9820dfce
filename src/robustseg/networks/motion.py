"""How the camera moves: the motion network, and a multi-task network with what learns beside it.

Sources: Zhou et al., CVPR 2017, and Godard et al., ICCV 2019 (motion); Klingner, Bär, Fingscheidt, CVPR Workshops 2020.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustseg.core.types import Images, Intrinsics, Logits, Pose
from robustseg.depth.geometry import invert_pose, rigid_pose
from robustseg.networks.depth import MultiTask

TURN_SCALE, SHIFT_SCALE = 0.01, 0.1
"""Factors on what the motion network answers: radians, and distances where inverse depth is 1 on average."""


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
