"""Per-pixel losses and the objectives that attacks maximise. Void pixels count for nothing.

An objective is `(network, images, labels) -> [b]`: one number an image, larger is better for whoever maximises it.
The family here is made of a per-pixel loss on logits, averaged over the labelled pixels of each image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.records import IGNORE, SpecError
from robustseg.types import Labels, Logits, Network, Objective, PerImage


def image_mean(values: Tensor, labels: Labels) -> PerImage:
    """Mean of per-pixel values `[b, h, w]` over the labelled pixels of each image; 0 for an image of void only."""
    valid = labels != IGNORE
    total = torch.where(valid, values, torch.zeros_like(values)).flatten(1).sum(1)
    return total / valid.flatten(1).sum(1).clamp_min(1)


def pixel_cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """`-log softmax(logits)[label]` of each pixel, `[b, h, w]`, 0 at void."""
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")


def cross_entropy(network: Network, images: Tensor, labels: Labels) -> PerImage:
    """Objective: mean cross-entropy over the labelled pixels of each image, `[b]`."""
    return image_mean(pixel_cross_entropy(network(images), labels), labels)


OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy}
"""Objectives that a spec may name."""


def objective(name: str | Objective) -> Objective:
    """The objective of this name; a callable is returned as it is.

    Raises:
        SpecError: the name is unknown.
    """
    if callable(name):
        return name
    if name not in OBJECTIVES:
        raise SpecError(f"expected an objective, got '{name}'; try {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
