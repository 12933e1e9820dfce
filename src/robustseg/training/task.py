"""The contract between the training loop and what it trains: batches, the loss of a step, notes, and the rank of a checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lightning_fabric import Fabric
from torch import Tensor, nn

from robustseg.core.types import Batch, Dataset, Network
from robustseg.training.recipe import Recipe
from robustseg.training.resumable import Batches


class Setup(NamedTuple):
    """The inputs of every training.

    Args:
        network: trained in place. data: training images. holdout: images on which checkpoints are ranked.
        recipe: schedule, augmentation and optimiser. fabric: device, precision and processes, already launched.
    """

    network: Network
    data: Dataset
    holdout: Dataset
    recipe: Recipe
    fabric: Fabric


class Loss(NamedTuple):
    """The loss of one step in this process.

    Args:
        loss: differentiable scalar; gradients are averaged over processes.
        figures: further scalars to report, by name; the loop averages them over processes.
        outputs: pairs of sample ids and a tensor `[b, ...]`. If the loss is not finite, the error names the samples
            whose values are not finite.
    """

    loss: Tensor
    figures: Mapping[str, Tensor]
    outputs: Sequence[tuple[Sequence[str], Tensor]]


@dataclass(frozen=True)
class HeldOut:
    """A measurement on the held-out data.

    Args:
        figures: results by name, such as `miou`; they go to the history and to the notes of the weights.
        rank: the checkpoint of the highest rank is kept.
        warning: what is wrong with the checkpoint, in words; empty if nothing is.
    """

    figures: Mapping[str, float]
    rank: float
    warning: str = ""


class Task(ABC):
    """What a training learns.

    Attributes:
        setup: the inputs of the training.
        trained: the module whose parameters are optimised and averaged; it is or contains `setup.network`.
        batches: what a step sees, by the number of the step.
        uncounted_passes: forward and backward passes of the network an image that do not go through its `forward`.
    """

    setup: Setup
    trained: nn.Module
    batches: Batches
    uncounted_passes: float = 0.0

    @property
    @abstractmethod
    def notes(self) -> dict[str, Any]:
        """What is written into the file of the weights; the entry `recipe` says how to train them again."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, step: int) -> Loss:
        """The loss of a step.

        Args:
            model: `trained`, wrapped by Fabric. batch: of this step, on the device. step: counts from 0.
        """

    @abstractmethod
    def measure(self, trained: nn.Module) -> HeldOut:
        """Evaluate `trained`, or a copy of it such as the averaged weights, on the held-out data."""

    def network_in(self, trained: nn.Module) -> Network:
        """The network inside `trained` or a copy of it."""
        assert isinstance(trained, Network)
        return trained

    def problem(self, figures: Sequence[Mapping[str, float]]) -> str:
        """Why the steps of an epoch, with these figures, taught nothing; empty if they did."""
        return ""

    def pictures(self, trained: nn.Module) -> dict[str, Tensor]:
        """Images `[b, 1 or 3, h, w]` in [0, 1] of what the network sees, by name, for TensorBoard."""
        return {}
