"""Depth and camera motion of networks measured against the truth of a data set, with the baselines that look at no image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.datasets.views import resize_image
from robustseg.depth_metrics import FARTHEST, DepthSums, depth_sums, forward_motion, row_medians, snippet_errors
from robustseg.metrics import sequences
from robustseg.records import RobustsegError
from robustseg.training.multitask import MotionNetwork
from robustseg.types import Dataset, Depth, Images, Network, Pose, Sample, device_of, dtype_of, frozen

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


def trained_motion(folder: str | Path) -> MotionNetwork:
    """The motion network of a training with video, as it was averaged up to its last checkpoint, `FOLDER/last.ckpt`.

    Raises:
        RobustsegError: there is no such checkpoint, or it is not of a training with video.
    """
    path, motion = Path(folder) / "last.ckpt", MotionNetwork()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["average"]
        motion.load_state_dict({n.removeprefix("motion."): t for n, t in state.items() if n.startswith("motion.")})
    except Exception as error:  # there is no telling what reading a torn or foreign file raises
        raise RobustsegError(
            f"expected the checkpoint of a training with video at '{path}', got {type(error).__name__}; "
            "try the folder of robustseg train --video"
        ) from error
    return motion.eval()


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
