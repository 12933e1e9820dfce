"""What the study of Klingner et al. 2020 measures besides labels: depth and poses, and what must be exact.

Depth and motion are those of the averaged weights at the end of training, from `last.ckpt`, as the motion network is kept nowhere else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustseg.depth_evaluation import Motion, RowDepth, evaluate_depth, motion_errors, straight_ahead
from robustseg.depth_metrics import depth_figures
from robustseg.experiments.klingner2020_claims import FORWARD, row_median_of
from robustseg.experiments.study import Measure
from robustseg.geometry import FARTHEST, NEAREST
from robustseg.networks.depth import MultiTask
from robustseg.photometric import ViewSynthesis, view_synthesis_loss
from robustseg.records import RobustsegError
from robustseg.training.multitask import Scene, WithMotion, frames_of
from robustseg.types import Batch, Dataset, device_of, frozen


def with_motion(network: MultiTask, folder: Path, weight: float, *, calibrated: bool) -> WithMotion:
    """A network with what was trained beside it, as it stood at the end of the training in a folder.

    Raises:
        RobustsegError: its checkpoint is not there.
    """
    path = folder / "last.ckpt"
    if not path.is_file():
        raise RobustsegError(f"expected the end of a training in '{path}', got no file; try training it again")
    trained = WithMotion(network, weight, calibrated=calibrated)
    trained.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
    return trained.eval()


def split_measures(network: MultiTask, images: Tensor, frames: Tensor) -> dict[str, float]:
    """Whether lambda changes outputs, and how far the gradient of the encoder is from the weighted sum of those of the tasks.

    Returns:
        `outputs`: the largest change of any output between two lambdas. `gradients`: the largest error of the encoder's
        gradient over its largest value, float64, of three lambdas.
    """
    encoder = list(network.module.encoder.parameters())

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, encoder, allow_unused=True, materialize_grads=True)]
        )

    def depth_loss(disparities: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([d.square().mean() for d in disparities]).sum()

    segmentation, depth = gradient(network(images).square().mean()), gradient(depth_loss(network.disparities(frames)))
    answers, errors = [], []
    for weight in (0.1, 0.5, 0.9):
        both = network.both(images, frames, weight)
        found = gradient(both.logits.square().mean() + depth_loss(both.disparities))
        wanted = weight * depth + (1 - weight) * segmentation
        errors.append(float((found - wanted).abs().max() / wanted.abs().max()))
        answers.append([both.logits.detach(), *(d.detach() for d in both.disparities)])
    changes = [float((a - b).abs().max()) for other in answers[1:] for a, b in zip(answers[0], other, strict=True)]
    return {"outputs": max(changes), "gradients": max(errors)}


def static_measures(trained: WithMotion, video: Batch) -> dict[str, float]:
    """What the depth loss makes of frames whose neighbours are the frames themselves: masked share and largest gradient."""
    frames = video.images
    scene = trained.scene(trained.network.disparities(frames), frames, frames, frames, video.extras["intrinsics"])
    view = _view(scene.disparities, scene, frames, frames, frames)
    gradients = torch.autograd.grad(view.loss.mean(), list(trained.parameters()), allow_unused=True)
    largest = max((float(g.abs().max()) for g in gradients if g is not None), default=0.0)
    return {"masked": float(view.masked_share.min()), "gradient": largest}


def depth_measures(
    trained: WithMotion,
    rows: RowDepth,
    data: Dataset,
    frame: tuple[int, int],
    *,
    kind: str,
    who: str,
    about: dict[str, Any],
) -> list[Measure]:
    """Figures of depth, means over the images of a data set, of a network and of its per-row median."""
    named: dict[str, MultiTask | RowDepth] = {who: trained.network, row_median_of(who): rows}
    figures = {name: depth_figures(evaluate_depth(guess, data, size=frame)) for name, guess in named.items()}
    return [Measure(kind, name, "", about, values) for name, values in figures.items()]


def pose_measures(trained: WithMotion, held: Dataset, *, who: str, about: dict[str, Any]) -> list[Measure]:
    """Errors of every five frames in a row of held-out video, of a network and of driving straight ahead."""
    found: dict[str, Motion] = {who: trained.motion, FORWARD: straight_ahead}
    return [
        Measure("pose", name, "", about, {"ate": float(motion_errors(motion, held).mean())})
        for name, motion in found.items()
    ]


def view_measures(
    trained: WithMotion, rows: RowDepth, held: Dataset, *, who: str, about: dict[str, Any]
) -> list[Measure]:
    """The photometric loss of each frame of held-out video, by the network's depth and by its per-row median, with its poses."""
    found = []
    for index in range(len(held)):
        video = Batch.of([held[index]]).to(device_of(trained))
        with frozen(trained), torch.no_grad():
            finest = trained.network.disparities(video.images)[:1]
            scene = trained.scene(finest, *frames_of(video))
            flat = depth_to_disparity(rows.depth(video.images))
            own, beside = (_view(d, scene, video.images, *frames_of(video)[1:3]) for d in (finest, [flat]))
        values = {"own": float(own.loss), "row median": float(beside.loss), "masked": float(own.masked_share)}
        found.append(Measure("views", who, video.ids[0], about, values))
    return found


def _view(
    disparities: Sequence[Tensor], scene: Scene, frames: Tensor, previous: Tensor, following: Tensor
) -> ViewSynthesis:
    poses = scene.pose_previous, scene.pose_next
    return view_synthesis_loss(disparities, frames, previous, following, *poses, scene.intrinsics)


def depth_to_disparity(depth: Tensor) -> Tensor:
    """The inverse of `geometry.disparity_to_depth`."""
    return (1 / depth - 1 / FARTHEST) / (1 / NEAREST - 1 / FARTHEST)
