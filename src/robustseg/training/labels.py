"""Training with labels: weighted cross-entropy, ranked by mIoU on the held-out data."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from robustseg.core.errors import RobustsegError
from robustseg.core.labels import IGNORE
from robustseg.core.types import Batch, Dataset, Images, Logits, Network, frozen
from robustseg.datasets.augment import Augmentation
from robustseg.datasets.views import batches, read
from robustseg.results import metrics
from robustseg.results.record import Counts
from robustseg.training.resumable import Batches, Remembered, layer_draws
from robustseg.training.task import HeldOut, Loss, Setup, Task


class Labels(Task):
    """Learn the labels of the training images; network outputs after those of the classes have weight 1.

    Raises:
        RobustsegError: as for `Batches`; or no pixel is labelled, of the training images or of the held-out ones.
    """

    def __init__(self, setup: Setup):
        self.setup, self.trained = setup, setup.network
        recipe, fabric = setup.recipe, setup.fabric
        augment = Augmentation(recipe.crop, recipe.scale, recipe.flip, recipe.colour)
        self.batches = Batches(setup.data, augment, batch_size=recipe.batch_size, seed=recipe.seed, fabric=fabric)
        for data in (setup.data, setup.holdout):
            require_labelled(data)
        class_weights = _class_weights(self.batches.samples, len(setup.data.label_space), recipe.balance)
        self.class_weights = fabric.to_device(class_weights)

    @property
    def notes(self) -> dict[str, Any]:
        return {"recipe": dataclasses.asdict(self.setup.recipe)}

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Loss:
        """The cross-entropy of a step."""
        images = self.images(batch, step)
        with layer_draws(self.setup.recipe.seed, step, self.setup.fabric):
            logits = model(images)
        return self.loss_of(logits, batch)

    def images(self, batch: Batch, step: int) -> Images:
        """What the network sees of a batch."""
        return batch.images.contiguous(memory_format=torch.channels_last)

    def loss_of(self, logits: Logits, batch: Batch) -> Loss:
        """The loss of the logits of `images`."""
        return Loss(self.over_batch(self.cross_entropy(logits.float(), batch), batch), {}, [(batch.ids, logits)])

    def cross_entropy(self, logits: Logits, batch: Batch) -> Tensor:
        """The sum of `class weight * cross-entropy` over the labelled pixels."""
        class_weights = F.pad(self.class_weights, (0, logits.shape[1] - len(self.class_weights)), value=1.0)
        return F.cross_entropy(logits, batch.labels, class_weights, ignore_index=IGNORE, reduction="sum")

    def over_batch(self, total: Tensor, batch: Batch) -> Tensor:
        """This process's share of the mean over the batch of all processes, as gradients are averaged over processes."""
        fabric = self.setup.fabric
        weight = self.class_weights[batch.labels[batch.labels != IGNORE]].sum()
        whole = torch.as_tensor(fabric.all_reduce(weight, reduce_op="sum"))
        return total / whole.clamp_min(1e-6) * fabric.world_size

    def measure(self, trained: nn.Module) -> HeldOut:
        """Clean mIoU, which is also the rank."""
        miou = miou_on(self.network_in(trained), self.setup.holdout, self.setup.fabric)
        return HeldOut({"miou": miou}, rank=miou)


def require_labelled(data: Dataset) -> None:
    """Raise unless some pixel has a label; as a rule the first image decides.

    Raises:
        RobustsegError: all pixels are void.
    """
    if not any((read(data, index).labels != IGNORE).any() for index in range(len(data))):
        raise RobustsegError(
            f"expected labelled pixels in '{data.spec}', got {len(data)} images of void pixels only; try another split"
        )


def miou_on(
    network: Network, data: Dataset, fabric: Fabric, *, attack: Callable[[Batch], Images] | None = None
) -> float:
    """mIoU of a network on labelled data, 0 to 1, NaN without labelled pixels; `attack` turns a batch into the images to label."""
    classes = len(data.label_space)
    counts = Counts.empty(classes)
    for batch in batches(data, 8):
        batch = batch.to(fabric.device)
        batch = dataclasses.replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
        images = attack(batch) if attack else batch.images
        with frozen(network), torch.inference_mode():
            predictions = network.predict(images).cpu().numpy()
        counts += metrics.count(batch.labels.cpu().numpy(), predictions, batch.ids, classes)
    return metrics.miou(counts)


def _class_weights(samples: Remembered, classes: int, balance: bool) -> Tensor:
    if not balance:
        return torch.ones(classes)
    pixels = torch.zeros(classes, dtype=torch.int64)
    for index in range(len(samples)):
        labels = samples[index].labels
        pixels += torch.bincount(labels[labels != IGNORE], minlength=classes)
    share = pixels.double() / pixels.sum().clamp_min(1)
    return (1 / torch.log(1.1 + share)).float()
