"""Per-pixel losses and the objectives that attacks maximise. Void pixels count for nothing.

An objective is `(network, images, labels) -> [b]`: one number an image, larger is better for whoever maximises it.
The family here is made of a per-pixel loss on logits, averaged over the labelled pixels of each image.
"""

import math
from collections.abc import Callable

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
    if logits.stride(1) == 1 and logits.shape[1] > 1:  # channels last: the classes of a pixel lie side by side
        rows = logits.permute(0, 2, 3, 1).flatten(0, 2)
        return F.cross_entropy(rows, labels.flatten(), ignore_index=IGNORE, reduction="none").view(labels.shape)
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")


def pixel_margin(logits: Logits, labels: Labels) -> Tensor:
    """`max_{j != label} logits[j] - logits[label]` of each pixel, `[b, h, w]`: positive where wrong; 0 at void.

    Source: Carlini and Wagner, S&P 2017, the loss on logits; it does not saturate where the network is sure.
    """
    valid = labels != IGNORE
    index = torch.where(valid, labels, 0).unsqueeze(1)
    others = logits.scatter(1, index, -math.inf).amax(1)
    return torch.where(valid, others - logits.gather(1, index).squeeze(1), 0)


def pixel_jensen_shannon(logits: Logits, labels: Labels) -> Tensor:
    """Jensen-Shannon divergence of `softmax(logits)` and the one-hot label, `[b, h, w]`, 0 to log 2; 0 at void.

    With p the probability of the label: `log 2 + (p log p - (1 + p) log(1 + p)) / 2`. Its gradient vanishes as p goes
    to 0, so pixels that are already lost stop pulling.

    Source: Croce, Singh, Hein, ECCV 2024.
    """
    log_p = -pixel_cross_entropy(logits, labels)
    p = log_p.exp()
    return torch.where(labels != IGNORE, math.log(2) + (p * log_p - (1 + p) * torch.log1p(p)) / 2, 0)


def pixel_cosine(logits: Logits, labels: Labels) -> Tensor:
    """`1 - cos(softmax(logits), onehot(label))` of each pixel, `[b, h, w]`, 0 to 1; 0 at void."""
    valid = labels != IGNORE
    p = logits.softmax(1)
    at_label = p.gather(1, torch.where(valid, labels, 0).unsqueeze(1)).squeeze(1)
    return torch.where(valid, 1 - at_label / p.norm(dim=1), 0)


def mean_over_pixels(loss: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The objective that averages a per-pixel loss `(logits, labels) -> [b, h, w]` over each image's labelled pixels."""

    def objective(network: Network, images: Tensor, labels: Tensor) -> Tensor:
        return image_mean(loss(network(images), labels), labels)

    return objective


def cross_entropy(network: Network, images: Tensor, labels: Labels) -> PerImage:
    """Objective: mean cross-entropy over the labelled pixels of each image, `[b]`."""
    return image_mean(pixel_cross_entropy(network(images), labels), labels)


OBJECTIVES: dict[str, Objective] = {
    "cross_entropy": cross_entropy,
    "margin": mean_over_pixels(pixel_margin),
    "jensen_shannon": mean_over_pixels(pixel_jensen_shannon),
    "cosine": mean_over_pixels(pixel_cosine),
}
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
