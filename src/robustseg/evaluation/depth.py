"""Depth and camera motion of networks measured against the truth of a data set, with the baselines that look at no image."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core.errors import RobustsegError
from robustseg.core.types import (
    Batch,
    Dataset,
    Depth,
    Images,
    Intrinsics,
    Network,
    Pose,
    Sample,
    device_of,
    dtype_of,
    frozen,
)
from robustseg.datasets.triplets import EXTRAS, Uncalibrated, frames_of
from robustseg.datasets.views import Chosen, Resized, Spread, resize_image
from robustseg.depth.geometry import depth_to_disparity
from robustseg.depth.odometry import align
from robustseg.depth.photometric import ViewSynthesis, view_synthesis_loss
from robustseg.networks import weights
from robustseg.networks.depth import MultiTask
from robustseg.networks.motion import SHIFT_SCALE, WithMotion
from robustseg.results.depth_metrics import (
    FARTHEST,
    DepthSums,
    depth_figures,
    depth_sums,
    forward_motion,
    row_medians,
    snippet_errors,
)
from robustseg.results.metrics import sequences

SNIPPET = 5
"""Frames whose path is judged at once, as Zhou et al. 2017 do."""

FRAMES = 60
"""Of a video, what its per-row median depth is taken from."""

Motion = Callable[[Images, Images, Intrinsics], Pose]
"""What tells the pose of each frame's camera to that of the next: `(frames, next frames, intrinsics) -> [b, 4, 4]`."""


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
        """The median depth of each row that a network sees in a video, of 60 frames evenly spread, at this (height, width)."""
        video = Spread(video, FRAMES)
        return cls(row_medians(np.stack([_seen(network, video[i], size)[0].numpy() for i in range(len(video))])))

    def depth(self, images: Images) -> Depth:
        """`[b, h, w]`, metres."""
        height, width = images.shape[-2:]
        rows = F.interpolate(self.rows.to(images.device).view(1, 1, -1), height, mode="linear", align_corners=False)
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
    """The network of a training with video and its motion, which is kept nowhere else, averaged up to the last checkpoint.

    These are the weights of `FOLDER/last.ckpt`; `best.safetensors` has those of the best check.

    Args:
        folder: of `train` with a `DepthTask`.

    Raises:
        RobustsegError: the folder holds no such training, none that is past its first check, or the control, which learns
            no depth.
    """
    path = Path(folder) / "last.ckpt"
    hint = "try the folder of robustseg train --video, past its first check"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["average"]
    except Exception as error:  # there is no telling what reading a torn or foreign file raises
        raise RobustsegError(
            f"expected the checkpoint of a training with video at '{path}', got {type(error).__name__}; {hint}"
        ) from error
    task = video_of(folder)
    network = weights.load(Path(folder) / "best.safetensors")
    if not isinstance(network, MultiTask) or not any(name.startswith("motion.") for name in state):
        raise RobustsegError(f"expected the checkpoint of a training with video at '{path}', got another; {hint}")
    if not task["weight"]:
        raise RobustsegError(
            f"expected a training that learned depth, got the control in '{folder}'; try another weight"
        )
    trained = WithMotion(network, 0.5, calibrated="focal" not in state)
    trained.load_state_dict(state)
    return trained.eval()


def video_of(folder: str | Path) -> dict[str, Any]:
    """The `DepthTask` of a training with video by its fields, from its best weights.

    Raises:
        RobustsegError: there are none yet, or they are of another training.
    """
    path = Path(folder) / "best.safetensors"
    task = weights.notes_of(path).get("recipe", {}).get("depth")
    if not task:
        raise RobustsegError(
            f"expected a training with video in '{path}', got another; try that of robustseg train --video"
        )
    return dict(task)


def view_losses(trained: WithMotion, rows: RowDepth, sample: Sample) -> dict[str, float]:
    """How badly depth and motion explain a frame of video by its neighbours, lower is better.

    Returns:
        `network`: the loss of view synthesis at full size. `row median`: the same with the depth of the baseline
        and the motion of the network. `network aligned`, `row median aligned`: the losses with each depth's own motion, found from
        the network's by aligning the frames (`odometry.align`). `masked`: the share of pixels that motion does not explain.
    """
    images, previous, following, intrinsics = frames_of(Batch.of([sample]).to(device_of(trained)))
    neighbours = previous, following
    with frozen(trained), torch.no_grad():
        own, flat = trained.network.depth(images), rows.depth(images)
        scene = trained.scene(depth_to_disparity(own), images, *neighbours, intrinsics)
        told = scene.pose_previous, scene.pose_next
        seen = _explained(images, neighbours, own, told, scene.intrinsics)
        found = {"network": seen, "row median": _explained(images, neighbours, flat, told, scene.intrinsics)}
        for name, depth in (("network aligned", own), ("row median aligned", flat)):
            pairs = zip(neighbours, told, strict=True)
            before, after = (align(images, other, depth, pose, scene.intrinsics) for other, pose in pairs)
            found[name] = _explained(images, neighbours, depth, (before, after), scene.intrinsics)
    return {**{name: float(view.loss) for name, view in found.items()}, "masked": float(seen.masked_share)}


def _explained(
    images: Images, neighbours: tuple[Images, Images], depth: Depth, poses: tuple[Pose, Pose], intrinsics: Intrinsics
) -> ViewSynthesis:
    return view_synthesis_loss(depth_to_disparity(depth), images, *neighbours, *poses, intrinsics)


class Judged(NamedTuple):
    """Figures of a network, and of the baseline of this name, which looks at no image."""

    network: dict[str, float]
    baseline: dict[str, float]
    name: str


def judge(trained: WithMotion, rows: RowDepth, data: Dataset, *, size: tuple[int, int]) -> dict[str, Judged]:
    """All that a data set can tell of depth and motion, means over the frames that know what it takes.

    Args:
        size: (height, width) of what the network sees.

    Returns:
        `depth`, of samples with that extra: beside the row median. `views`, of those with neighbours and intrinsics: the
        loss of view synthesis, beside that with the row median, with the motion of the network and with motion found by aligning. A
        network that learned a focal length uses it where the data knows none. `pose`, of drives of four frames or more, each the
        neighbour of the one before, with poses and intrinsics: the trajectory error in metres, beside going straight ahead, each as it is and
        turned by aligning (see `turned`; with the depth of the network, and with the row median).

    Raises:
        RobustsegError: the samples know nothing of the three.
    """
    extras = [set(data[i].extras) for i in range(len(data))]
    if trained.focal is not None and any("intrinsics" in names for names in extras):
        trained = copy.deepcopy(trained)
        trained.focal = None
    elif trained.focal is not None:
        data, extras = Uncalibrated(data), [{*names, "intrinsics"} for names in extras]
    deep, seen = (_knowing(data, extras, names) for names in ({"depth"}, set(EXTRAS)))
    drives = _drives(_knowing(data, extras, {"next", "pose_next", "intrinsics"}))
    found = {}
    if len(deep):
        own, flat = (depth_figures(evaluate_depth(guess, deep, size=size)) for guess in (trained.network, rows))
        found["depth"] = Judged(own, flat, "row median")
    if len(seen):
        resized = Resized(seen, size)
        losses = [view_losses(trained, rows, resized[i]) for i in range(len(resized))]
        mean = {name: float(np.mean([lost[name] for lost in losses])) for name in losses[0]}
        own, flat = (
            {"loss": mean[name], "loss aligned": mean[f"{name} aligned"]} for name in ("network", "row median")
        )
        found["views"] = Judged({**own, "masked": mean["masked"]}, flat, "row median")
    if len(drives):
        whole = Resized(drives, size)
        own, flat = (
            {
                "ate": float(motion_errors(motion, whole).mean()),
                "ate turned": float(motion_errors(turned(depth, motion), whole).mean()),
            }
            for depth, motion in ((trained.network, told_by(trained)), (rows, straight_ahead))
        )
        found["pose"] = Judged(own, flat, "straight ahead")
    if not found:
        raise RobustsegError(
            f"expected depth, neighbours or poses in {data.spec}, got none; try streets(neighbours=True) or dgp(root='…')"
        )
    return found


def _knowing(data: Dataset, extras: Sequence[set[str]], names: set[str]) -> Chosen:
    """The samples with these extras."""
    return Chosen(data, [name for name, known in zip(data.ids, extras, strict=True) if names <= known])


def _drives(data: Dataset) -> Chosen:
    """The samples of sequences long enough for a snippet, each frame of which is followed by its neighbour."""
    kept = []
    for indices in sequences(data.ids).values():
        if len(indices) >= SNIPPET - 1 and _follows(data[indices[0]], data[indices[1]]):
            kept += [data.ids[i] for i in indices]
    return Chosen(data, kept)


def _follows(sample: Sample, after: Sample) -> bool:
    return torch.equal(sample.extras["next"], after.image)


def straight_ahead(frames: Images, following: Images, intrinsics: Intrinsics) -> Pose:
    """The baseline of motion: straight ahead, always as far; in units in which inverse depth is 1 on average, so that frames can be aligned."""
    ahead = torch.from_numpy(forward_motion(len(frames))).to(frames)
    ahead[:, :3, 3] *= SHIFT_SCALE
    return ahead


def told_by(trained: WithMotion) -> Motion:
    """The motion network of a training."""

    def motion(frames: Images, following: Images, intrinsics: Intrinsics) -> Pose:
        with frozen(trained.motion), torch.no_grad():
            given = (x.to(device_of(trained), dtype_of(trained)) for x in (frames, following))
            pose: Pose = trained.motion(*given).to(frames)
            return pose

    return motion


def turned(network: "Network | RowDepth", motion: Motion) -> Motion:
    """A motion with its own shift and the turn that aligning the frames finds with the depth of a network.

    A motion network knows turns like those it was trained on, where aligning finds any; the shift that it finds beside makes up for what is
    wrong with the depth, so that is left as it was.
    """

    def both(frames: Images, following: Images, intrinsics: Intrinsics) -> Pose:
        pose = motion(frames, following, intrinsics)
        with frozen(network), torch.no_grad():
            depth = network.depth(frames.to(device_of(network), dtype_of(network))).to(frames)  # type: ignore[operator]
        found = pose.clone()
        found[:, :3, :3] = align(frames, following, depth, pose, intrinsics)[:, :3, :3]
        return found

    return both


def motion_errors(motion: Motion, data: Dataset, *, snippet: int = SNIPPET) -> np.ndarray:
    """The trajectory error of every snippet of frames, metres (`depth_metrics.snippet_errors`), over all sequences.

    Args:
        motion: such as `told_by(trained)`, `straight_ahead`, or one of these `turned`.
        data: frames of whole sequences in order, with the extras `next`, `pose_next` and `intrinsics`, at the size that `motion` expects.
        snippet: frames of one.

    Raises:
        RobustsegError: the extras are missing. ShapeError: a sequence is shorter than a snippet.
    """
    errors = []
    for indices in sequences(data.ids).values():
        if len(indices) > 1 and "next" in data[indices[0]].extras and not _follows(data[indices[0]], data[indices[1]]):
            raise RobustsegError(
                f"expected frames that are each followed by their neighbour, got others after '{data.ids[indices[0]]}' "
                f"in {data.spec}; try step=1 and all frames"
            )
        steps = [_step(motion, data[i]) for i in indices]
        truth, found = (np.stack(poses) for poses in zip(*steps, strict=True))
        errors.append(snippet_errors(truth, found, frames=snippet))
    return np.concatenate(errors)


def _step(motion: Motion, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The true and the found pose of a frame's camera to the next."""
    lost = [name for name in ("next", "pose_next", "intrinsics") if name not in sample.extras]
    if lost:
        raise RobustsegError(
            f"expected '{lost[0]}' of each frame, got none of '{sample.id}'; try streets(neighbours=True) or kitti_odometry"
        )
    pose = motion(*(x[None] for x in (sample.image, sample.extras["next"], sample.extras["intrinsics"])))
    return sample.extras["pose_next"].double().numpy(), pose[0].double().cpu().numpy()
