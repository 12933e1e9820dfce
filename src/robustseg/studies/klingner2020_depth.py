"""What the study of Klingner et al. 2020 measures besides labels: depth and poses, and what must be exact."""

import copy
from typing import Any

import torch
from torch import Tensor

from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.core.provenance import digest
from robustseg.core.types import Batch, Dataset
from robustseg.datasets.views import batches, content
from robustseg.depth.geometry import disparity_to_depth
from robustseg.depth.photometric import view_synthesis_loss
from robustseg.depth.stereo import label_loss, search_depth
from robustseg.evaluation.depth import RowDepth, judge, trained_on_video
from robustseg.networks.depth import MultiTask
from robustseg.networks.motion import WithMotion
from robustseg.studies.klingner2020 import HELD_VIDEO, Setting, baseline_of
from robustseg.studies.measures import Measure
from robustseg.studies.run import Work

FORMAT = 2
"""Of the measures: 2 adds views with poses found by aligning, and takes a known camera before a learned one."""


def about(work: Work, setting: Setting, who: str) -> dict[str, Any]:
    """What decides the measures of a network."""
    return {
        "format": FORMAT,
        "weights": digest(work.network(who)),
        "video": setting.video,
        "depth": dict(setting.depth),
        "held": setting.held,
        "frame": list(setting.frame),
        "content": [content(api.data(spec)).digest for spec in (*setting.depth.values(), setting.held)],
    }


def measured(work: Work, setting: Setting, who: str) -> list[Measure]:
    """Depth and poses of one network beside baselines that look at no image, and what must be exact.

    Raises:
        RobustsegError: the data of the study lacks depth, neighbours or poses.
    """
    trained = trained_on_video(work.home(who)).to(work.device)
    some = next(batches(work.data("held"), 2)).to(work.device)
    exact = copy.deepcopy(trained.network).double().eval()
    found = [
        Measure("split", who, "", {}, split_measures(exact, some.images.double(), some.extras["next"].double())),
        Measure("static", who, "", {}, static_measures(trained, some)),
    ]
    rows = RowDepth.of(trained.network, api.data(setting.video), size=setting.frame)
    for where, spec in {**setting.depth, HELD_VIDEO: setting.held}.items():
        found += judged_measures(trained, rows, api.data(spec), setting.frame, where=where, who=who)
    wanted = {f"views {HELD_VIDEO}", f"pose {HELD_VIDEO}", *(f"depth {where}" for where in setting.depth)}
    if lost := wanted - {measure.kind for measure in found}:
        raise RobustsegError(
            f"expected depth, neighbours and poses in the data of the study, got no {', '.join(sorted(lost))}; try whole drives"
        )
    return found


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

    segmentation, depth = gradient(network(images).square().mean()), gradient(network.disparity(frames).square().mean())
    answers, errors = [], []
    for weight in (0.1, 0.5, 0.9):
        both = network.both(images, frames, weight)
        assert both.disparity is not None  # as the weight is not 0
        found = gradient(both.logits.square().mean() + both.disparity.square().mean())
        wanted = weight * depth + (1 - weight) * segmentation
        errors.append(float((found - wanted).abs().max() / wanted.abs().max()))
        answers.append([both.logits.detach(), both.disparity.detach()])
    changes = [float((a - b).abs().max()) for other in answers[1:] for a, b in zip(answers[0], other, strict=True)]
    return {"outputs": max(changes), "gradients": max(errors)}


def static_measures(trained: WithMotion, video: Batch) -> dict[str, float]:
    """What the depth loss makes of frames whose neighbours are the frames themselves: masked share and largest gradient."""
    frames = video.images
    scene = trained.scene(trained.network.disparity(frames), frames, frames, frames, video.extras["intrinsics"])
    poses = scene.pose_previous, scene.pose_next
    view = view_synthesis_loss(scene.disparity, frames, frames, frames, *poses, scene.intrinsics)
    depth = disparity_to_depth(scene.disparity)
    searched = search_depth(
        frames, (frames, frames), depth.detach(), [pose.detach() for pose in poses], scene.intrinsics.detach()
    )
    loss = (view.loss + label_loss(depth, searched)).mean()
    gradients = torch.autograd.grad(loss, list(trained.parameters()), allow_unused=True)
    largest = max((float(g.abs().max()) for g in gradients if g is not None), default=0.0)
    return {"masked": float(view.masked_share.min()), "gradient": largest}


def judged_measures(
    trained: WithMotion,
    rows: RowDepth,
    data: Dataset,
    frame: tuple[int, int],
    *,
    where: str,
    who: str,
) -> list[Measure]:
    """All that `judge` says of a network and of the baselines beside it, as measures `depth WHERE`, `views WHERE` and `pose WHERE`."""
    found = []
    for what, judged in judge(trained, rows, data, size=frame).items():
        for name, values in ((who, judged.network), (baseline_of(judged.name, who), judged.baseline)):
            found.append(Measure(f"{what} {where}", name, "", {}, values))
    return found
