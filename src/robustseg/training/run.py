"""Train a network: put the task together from labels, an adversary and video, and run the loop."""

from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric

from robustseg.core.errors import RobustsegError
from robustseg.core.files import make_folder
from robustseg.core.types import Dataset, Network
from robustseg.training.adversarial import AdversarialLabels, Adversary
from robustseg.training.depth import DepthFromVideo, DepthTask
from robustseg.training.labels import Labels
from robustseg.training.loop import Step, Training
from robustseg.training.recipe import Recipe
from robustseg.training.task import Setup, Task


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

    Writes `FOLDER/best.safetensors` (network, classes, recipe), `FOLDER/history.jsonl` (one line a check) and
    `FOLDER/last.ckpt`, from which an interrupted run resumes.

    Args:
        network: trained in place; its label space must be the data's. Outputs after those of the classes weigh 1.
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
        LabelSpaceMismatch: network and data differ. RobustsegError: there are no images or fewer than processes, the
            folder cannot be written, its checkpoint is torn, or it holds a run under other conditions; a loss is not finite
            (the last checkpoint stays); an adversary beside depth alone; or as for `depth.DepthFromVideo`.
            MissingExtra: events are wanted without TensorBoard.
    """
    folder, fabric = Path(folder), fabric or Fabric(accelerator="cpu", devices=1)
    for dataset, name in ((data, data.spec), (holdout, holdout.spec)):
        network.label_space.require_same(dataset.label_space, mine=network.spec, theirs=name)
        if not len(dataset):
            raise RobustsegError(f"expected labelled images, got none in '{name}'; try another split")
    make_folder(folder)
    task = task_of(Setup(network, data, holdout, recipe or Recipe(), fabric), adversary, depth)
    return Training(task, folder).run(on_step, tensorboard=tensorboard)


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
