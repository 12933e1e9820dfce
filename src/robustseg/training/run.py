"""Train a network: put the task together from labels, an adversary and video, and run the loop."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from robustseg.core import registry
from robustseg.core.code import code_of
from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_lines
from robustseg.core.folders import result_in
from robustseg.core.provenance import digest
from robustseg.core.types import Dataset, Network
from robustseg.training.adversarial import AdversarialLabels, Adversary
from robustseg.training.depth import DepthFromVideo, DepthTask
from robustseg.training.fabric import fabric_on, require_joined
from robustseg.training.labels import Labels
from robustseg.training.loop import Step, Training
from robustseg.training.recipe import Recipe
from robustseg.training.resumable import begun, identity, processes_of
from robustseg.training.task import Setup, Task

HEAD = "train.json"
FILES = ("best.safetensors", "last.ckpt", "history.jsonl")


def train(
    network: Network,
    data: Dataset,
    *,
    holdout: Dataset,
    folder: str | Path,
    recipe: Recipe | None = None,
    adversary: Adversary | None = None,
    depth: DepthTask | None = None,
    fabric: Fabric | None = None,
    tensorboard: bool = False,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Path:
    """Train a network with labels and keep the weights of the best mIoU on held-out data, under attack if an adversary is given.

    With video the network learns depth beside the labels or, with a weight of 1, depth alone; the best weights are then those
    of the lowest view-synthesis loss on held-out video.

    Writes `FOLDER/train.json` (the conditions of the run), `FOLDER/best.safetensors` (network, classes, recipe),
    `FOLDER/history.jsonl` (one line a check) and `FOLDER/last.ckpt`, from which an interrupted run resumes. A finished run is
    left as it is. The folder of a run with other images, masks, start weights, code or settings is refused.

    Args:
        network: trained in place; its label space must be the data's. Outputs after those of the classes weigh 1. To resume,
            build it with the weights that it had at the start.
        data, holdout: labelled images; choose `holdout` from training data, never from test. Images that fill no whole
            batch are left out of an epoch; data of fewer images than a batch are one smaller batch. To learn depth alone,
            `holdout` is video like that of the task, and `data` is not read.
        folder: of the results; an unfinished run in it is resumed.
        adversary: attacks the images of each batch; None: training on clean images.
        depth: a second task for a `multitask` network, with as many video frames a step as images; None: labels alone.
        fabric: device, precision and processes; launched already (see `fabric_on`). Default: one process on the CPU.
        tensorboard: also write event files into the folder: curves and, of the same frames at each check, pictures.
        on_step: called after each step, on the first process.

    Returns:
        The path of the best weights.

    Raises:
        LabelSpaceMismatch: network and data differ. RobustsegError: there are no images, no labelled pixel, or fewer images
            than processes; the folder cannot be written, another run writes there, its checkpoint is torn, or it holds
            something else; a loss is not finite (the last checkpoint stays); no measurement on the held-out data was finite;
            a launcher started processes that `fabric` did not join; an adversary beside depth alone; or as for
            `depth.DepthFromVideo`. MissingExtra: events are wanted without TensorBoard.
    """
    folder, fabric = Path(folder), fabric or fabric_on("cpu")
    require_joined(fabric)
    for dataset, name in ((data, data.spec), (holdout, holdout.spec)):
        network.label_space.require_same(dataset.label_space, mine=network.spec, theirs=name)
        if not len(dataset):
            raise RobustsegError(f"expected labelled images, got none in '{name}'; try another split")
    setup = Setup(network, data, holdout, recipe or Recipe(), fabric)
    about, task = _conditions(setup, adversary, depth), task_of(setup, adversary, depth)
    with begun(folder / HEAD, fabric, about, FILES):
        return Training(task, folder).run(on_step, tensorboard=tensorboard)


def finished(setup: Setup, folder: Path, *, adversary: Adversary | None = None, depth: DepthTask | None = None) -> bool:
    """Whether `train` with these arguments has nothing to do in a folder.

    Raises:
        RobustsegError: the folder holds something else, or a run under other conditions.
    """
    history = folder / "history.jsonl"
    if result_in(folder / HEAD, _conditions(setup, adversary, depth), FILES) is None or not history.is_file():
        return False
    lines = list(read_lines(history, torn=True))
    return bool(lines and lines[-1].get("epoch", 0) >= setup.recipe.epochs and (folder / FILES[0]).is_file())


def _conditions(setup: Setup, adversary: Adversary | None, depth: DepthTask | None) -> dict[str, Any]:
    """What a run keeps from its first step to its last."""
    network, data, holdout, recipe, fabric = setup
    beside = {"adversary": adversary and str(adversary), "depth": depth and str(depth)}
    video = {"video": identity(registry.build("data", depth.video))} if depth else {}
    return {
        **dataclasses.asdict(recipe),
        "network spec": network.spec,
        "start weights": digest(network),
        "code of the network": code_of(network),
        "data": identity(data),
        "held-out data": identity(holdout),
        **video,
        **beside,
        **processes_of(fabric),
    }


def task_of(setup: Setup, adversary: Adversary | None = None, depth: DepthTask | None = None) -> Task:
    """The task of a training: labels, attacked if there is an adversary, with depth beside them or depth alone.

    Raises:
        RobustsegError: an adversary beside depth alone, which has no labels to attack; or as for the tasks.
    """
    setup.network.to(memory_format=torch.channels_last)
    if depth and depth.weight == 1:
        if adversary:
            raise RobustsegError(
                f"expected labels for the adversary '{adversary.attack}', got depth alone; "
                "try a weight of depth below 1, or no adversary"
            )
        return DepthFromVideo(setup, depth, labels=None)
    labels = AdversarialLabels(setup, adversary) if adversary else Labels(setup)
    return DepthFromVideo(setup, depth, labels) if depth else labels
