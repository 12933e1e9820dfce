"""Depth and camera motion of networks measured against the truth of a data set, with the baselines that look at no image."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg import registry
from robustseg.datasets.views import Resized, resize_image
from robustseg.depth_metrics import (
    FARTHEST,
    DepthSums,
    depth_figures,
    depth_sums,
    forward_motion,
    row_medians,
    snippet_errors,
)
from robustseg.geometry import depth_to_disparity
from robustseg.metrics import sequences
from robustseg.photometric import view_synthesis_loss
from robustseg.records import RobustsegError
from robustseg.training.multitask import EXTRAS, WithMotion, frames_of
from robustseg.types import Batch, Dataset, Depth, Images, Network, Pose, Sample, device_of, dtype_of, frozen

Motion = Callable[[Images, Images], Pose]
"""What tells the pose of each frame's camera to that of the next: `(frames, next frames) -> [b, 4, 4]`."""


class RowDepth(nn.Module):
    """The baseline of depth: the same depth for all pixels of a row, whatever the image shows.

    Args:
        rows: `[h]`, metres, top to bottom; images of other heights get what lies between.
    """

    def __init__(self, rows: np.ndarray):
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(rows).float())
        self.rows: Tensor

    @classmethod
    def of(cls, network: Network, video: Dataset, *, size: tuple[int, int]) -> "RowDepth":
        """The median depth of each row that a network sees in a video, at this (height, width)."""
        return cls(row_medians(np.stack([_seen(network, video[i], size)[0].numpy() for i in range(len(video))])))

    def depth(self, images: Images) -> Depth:
        """`[b, h, w]`, metres."""
        height, width = images.shape[-2:]
        rows = F.interpolate(self.rows.view(1, 1, -1), height, mode="linear", align_corners=False)
        return rows.view(1, height, 1).expand(len(images), height, width)


def evaluate_depth(
    network: "Network | RowDepth", data: Dataset, *, size: tuple[int, int] | None = None, farthest: float = FARTHEST
) -> DepthSums:
    """Compare the depth that a network sees with the truth, at the truth's own size; `depth_figures` sums it up.

    Args:
        network: has `depth(images) -> [b, h, w]`. data: samples with the extra `depth`; without one they are left out.
        size: (height, width) of what the network sees; None: the images as they are. Inverse depth is resized back.
        farthest: truth beyond it (metres) does not count.

    Raises:
        RobustsegError: no sample has depth, or the network's is not above 0.
    """
    found: list[DepthSums] = []
    for i in range(len(data)):
        sample = data[i]
        if "depth" not in sample.extras:
            continue
        truth, seen = sample.extras["depth"], _seen(network, sample, size or tuple(sample.image.shape[-2:]))
        whole = 1 / F.interpolate(1 / seen.unsqueeze(1), truth.shape, mode="bilinear", align_corners=False)[:, 0]
        found.append(depth_sums(truth[None].numpy(), whole.numpy(), [sample.id], farthest=farthest))
    if not found:
        raise RobustsegError(f"expected depth in {data.spec}, got none; try streets() or dgp(root='…')")
    return sum(found[1:], found[0])


def _seen(network: nn.Module, sample: Sample, size: tuple[int, ...]) -> Tensor:
    """The depth that a network sees in a sample at a size, `[1, h, w]` on the CPU."""
    image = resize_image(sample.image, (size[0], size[1]))[None].to(device_of(network), dtype_of(network))
    with frozen(network), torch.no_grad():
        depth: Tensor = network.depth(image)  # type: ignore[operator]
    return depth.float().cpu()


def trained_on_video(folder: str | Path) -> WithMotion:
    """What a training with video ended with, averaged as its best weights are: the network, and motion, which is kept nowhere else.

    Args:
        folder: of `train` with a `DepthTask`; its `last.ckpt` is read.

    Raises:
        RobustsegError: there is no such checkpoint, or it is not of a training with video.
    """
    path = Path(folder) / "last.ckpt"
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        network, state = registry.build("network", kept["network spec"]), kept["average"]
        trained = WithMotion(network, 0.5, calibrated="focal" not in state)
        trained.load_state_dict(state)
    except Exception as error:  # there is no telling what reading a torn or foreign file raises
        raise RobustsegError(
            f"expected the checkpoint of a training with video at '{path}', got {type(error).__name__}; "
            "try the folder of robustseg train --video"
        ) from error
    return trained.eval()


def view_losses(trained: WithMotion, rows: RowDepth, sample: Sample) -> dict[str, float]:
    """How badly depth and motion explain a frame of video by its neighbours, lower is better.

    Returns:
        `network`: the loss of view synthesis at the finest scale. `row median`: the same with the depth of the baseline
        and the motion of the network. `masked`: the share of pixels that motion does not explain.
    """
    video = Batch.of([sample]).to(device_of(trained))
    with frozen(trained), torch.no_grad():
        finest = trained.network.disparities(video.images)[:1]
        images, previous, following, intrinsics = frames_of(video)
        scene = trained.scene(finest, images, previous, following, intrinsics)
        poses = scene.pose_previous, scene.pose_next
        flat = (depth_to_disparity(rows.depth(images)),)
        own, beside = (
            view_synthesis_loss(d, images, previous, following, *poses, scene.intrinsics) for d in (finest, flat)
        )
    return {"network": float(own.loss), "row median": float(beside.loss), "masked": float(own.masked_share)}


class Beside(NamedTuple):
    """Figures of a network beside those of a baseline that looks at no image."""

    baseline: str
    network: dict[str, float]
    beside: dict[str, float]


def judge(trained: WithMotion, rows: RowDepth, data: Dataset, *, size: tuple[int, int]) -> dict[str, Beside]:
    """All that a data set can tell of depth and motion, means over its frames.

    Returns:
        As far as the samples know what it takes: `depth` (extra `depth`; beside the row median), `views` (neighbours and
        intrinsics; the loss of view synthesis, beside that with the row median) and `pose` (neighbours and poses; the
        trajectory error of five frames in metres, beside going straight ahead).

    Args:
        size: (height, width) of what the network sees.

    Raises:
        RobustsegError: the samples know nothing of the three.
    """
    known, found = data[0].extras, {}
    if "depth" in known:
        own, flat = (depth_figures(evaluate_depth(guess, data, size=size)) for guess in (trained.network, rows))
        found["depth"] = Beside("row median", own, flat)
    resized = Resized(data, size)
    if all(name in known for name in EXTRAS):
        losses = [view_losses(trained, rows, resized[i]) for i in range(len(resized))]
        mean = {name: float(np.mean([lost[name] for lost in losses])) for name in losses[0]}
        own, flat = {"loss": mean["network"], "masked": mean["masked"]}, {"loss": mean["row median"]}
        found["views"] = Beside("row median", own, flat)
    if "next" in known and "pose_next" in known:
        motions: tuple[Motion, ...] = (trained.motion, straight_ahead)
        own, flat = ({"ate": float(motion_errors(motion, resized).mean())} for motion in motions)
        found["pose"] = Beside("straight ahead", own, flat)
    if not found:
        raise RobustsegError(
            f"expected depth, neighbours or poses in {data.spec}, got none; try streets(neighbours=True) or dgp(root='…')"
        )
    return found


def straight_ahead(frames: Images, following: Images) -> Pose:
    """The baseline of motion: straight ahead, always as far."""
    return torch.from_numpy(forward_motion(len(frames))).to(frames)


def motion_errors(motion: Motion, data: Dataset, *, snippet: int = 5) -> np.ndarray:
    """The trajectory error of every snippet of frames, metres (`depth_metrics.snippet_errors`), over all sequences.

    Args:
        motion: a network or `straight_ahead`.
        data: frames of whole sequences in order, with the extras `next` and `pose_next`, at the size that `motion` expects.
        snippet: frames of one.

    Raises:
        RobustsegError: the extras are missing. ShapeError: a sequence is shorter than a snippet.
    """
    errors = []
    for indices in sequences(data.ids).values():
        steps = [_step(motion, data[i]) for i in indices]
        truth, found = (np.stack(poses) for poses in zip(*steps, strict=True))
        errors.append(snippet_errors(truth, found, frames=snippet))
    return np.concatenate(errors)


def _step(motion: Motion, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The true and the found pose of a frame's camera to the next."""
    lost = [name for name in ("next", "pose_next") if name not in sample.extras]
    if lost:
        raise RobustsegError(
            f"expected '{lost[0]}' of each frame, got none of '{sample.id}'; try streets(neighbours=True) or kitti_odometry"
        )
    frames = [x[None] for x in (sample.image, sample.extras["next"])]
    if isinstance(motion, nn.Module):
        with frozen(motion), torch.no_grad():
            pose = motion(*(x.to(device_of(motion), dtype_of(motion)) for x in frames))
    else:
        pose = motion(frames[0], frames[1])
    return sample.extras["pose_next"].double().numpy(), pose[0].double().cpu().numpy()
