"""Per-pixel losses and the objectives that attacks maximise. Void pixels count for nothing.

An objective is `(network, images, labels) -> [b]`: one number an image, larger is better for whoever maximises it.
The family here is made of a per-pixel loss on logits, averaged over the labelled pixels of each image.

Some losses of the literature weight pixels so that those already lost stop pulling. A weighted loss falls as an attack
succeeds, so it cannot say which of two images is the better attack. Here weights act on the gradient only (`pull`): the
value stays the unweighted loss, and values of different steps, weights and attacks compare.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.types import Images, Labels, Logits, Mask, Network, Objective, PerImage, band_rows, most_likely


def image_mean(values: Tensor, labels: Labels) -> PerImage:
    """Mean of per-pixel values `[b, h, w]` over the labelled pixels of each image; 0 for an image of void only."""
    valid = labels != IGNORE
    total = torch.where(valid, values, torch.zeros_like(values)).flatten(1).sum(1)
    return total / valid.flatten(1).sum(1).clamp_min(1)


def pixel_cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """`-log softmax(logits)[label]` of each pixel, `[b, h, w]`, 0 at void."""
    values: Tensor = _CrossEntropy.apply(logits, labels)
    return values


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy in bands of rows, whose backward writes the gradient once: `weight * (softmax - onehot)`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        valid = labels != IGNORE
        index = torch.where(valid, labels, 0).unsqueeze(1)
        ctx.save_for_backward(logits, index, valid)
        rows = band_rows(logits)
        bands = zip(logits.split(rows, 2), index.split(rows, 2), strict=True)
        log_p = torch.cat([_exact(band).log_softmax(1).gather(1, at) for band, at in bands], 2)
        return torch.where(valid, -log_p.squeeze(1), 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
        logits, index, valid = ctx.saved_tensors
        weights = torch.where(valid, weights, 0).unsqueeze(1)
        rows, gradient = band_rows(logits), torch.empty_like(logits)
        bands = [whole.split(rows, 2) for whole in (gradient, logits, index, weights)]
        for goal, band, at, weight in zip(*bands, strict=True):
            goal.copy_(_exact(band).softmax(1).mul_(weight).scatter_add_(1, at, -weight))
        return gradient, None


def _exact(band: Tensor) -> Tensor:
    """In float32 or better, class planes apart: the softmax over classes side by side takes three times as long."""
    return band.to(torch.promote_types(band.dtype, torch.float32), memory_format=torch.contiguous_format)


def _in_bands(loss: Callable[[Logits, Labels], Tensor]) -> Callable[[Logits, Labels], Tensor]:
    """The same per-pixel loss, a band of rows at a time, forward and back: what it makes on the way stays small."""

    @wraps(loss)
    def banded(logits: Logits, labels: Labels) -> Tensor:
        values: Tensor = _InBands.apply(logits, labels, loss)
        return values

    return banded


class _InBands(torch.autograd.Function):
    """A loss whose bands are forgotten and computed once more on the way back."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, loss: Callable[[Logits, Labels], Tensor]) -> Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.loss, rows = loss, band_rows(logits)
        bands = zip(logits.split(rows, 2), labels.split(rows, 1), strict=True)
        return torch.cat([loss(_exact(band), target) for band, target in bands], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None]:
        logits, labels = ctx.saved_tensors
        rows, gradient = band_rows(logits), torch.empty_like(logits)
        bands = zip(*(whole.split(rows, -2) for whole in (gradient, logits, labels, weights)), strict=True)
        for goal, band, target, weight in bands:
            leaf = _exact(band.detach()).requires_grad_()
            with torch.enable_grad():
                values = ctx.loss(leaf, target)
            goal.copy_(torch.autograd.grad(values, leaf, weight)[0])
        return gradient, None, None


@_in_bands
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
    loss = pixel_cross_entropy(logits, labels)
    log_p = -loss.clamp_max(torch.finfo(loss.dtype).max)  # 0 * infinity where the difference of two logits overflows
    p = log_p.exp()
    return torch.where(labels != IGNORE, math.log(2) + (p * log_p - (1 + p) * torch.log1p(p)) / 2, 0)


@_in_bands
def pixel_cosine(logits: Logits, labels: Labels) -> Tensor:
    """`1 - cos(softmax(logits), onehot(label))` of each pixel, `[b, h, w]`, 0 to 1; 0 at void."""
    valid = labels != IGNORE
    p = logits.softmax(1)
    at_label = p.gather(1, torch.where(valid, labels, 0).unsqueeze(1)).squeeze(1)
    return torch.where(valid, 1 - at_label / p.norm(dim=1), 0)


def pull(values: Tensor, weights: Tensor) -> Tensor:
    """These values, with a gradient that is `weights` times theirs; the weights have none."""
    return values.detach() + weights.detach().to(values) * (values - values.detach())


def pixel_masked_cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """Cross-entropy of each pixel, `[b, h, w]`, that pulls only where the prediction is right: `1[argmax = y] * CE`.

    Source: Croce, Singh, Hein, ECCV 2024, masked cross-entropy.
    Differs: the mask acts on the gradient (`pull`), as where their code tracks the plain cross-entropy.
    """
    return pull(pixel_cross_entropy(logits, labels), most_likely(logits) == labels)


def pixel_balanced_masked_cross_entropy(
    logits: Logits, labels: Labels, *, class_pixels: Sequence[int] | None = None
) -> Tensor:
    """Masked cross-entropy whose pixels pull by `1 / N_label`, so that every class pulls alike; value as unweighted.

    Args:
        logits: `[b, k, h, w]`. labels: `[b, h, w]`, void 255.
        class_pixels: N of each class, such as over the training set; weights are scaled to `mean(N) / N`, and a class
            without a pixel counts as one pixel. None takes, for each image, the counts of its own labels: then all
            classes within an image pull alike, and a class that is rare in the set gets no more than any other.

    Raises:
        SpecError: fewer counts than a label needs.

    Source: Croce, Singh, Hein, ECCV 2024, balanced masked cross-entropy (N over the training set).
    """
    valid = labels != IGNORE
    if class_pixels is None:
        offset = (IGNORE + 1) * torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
        pixels = torch.bincount((labels + offset).flatten(), minlength=(IGNORE + 1) * len(labels))
        pixels = pixels.view(len(labels), IGNORE + 1)[:, :IGNORE]
    else:
        if int(torch.where(valid, labels, 0).amax()) >= len(class_pixels):
            raise SpecError(f"expected pixels of every class, got {len(class_pixels)} numbers; try one a class")
        pixels = torch.tensor([class_pixels], device=labels.device).expand(len(labels), -1)
    share = (
        pixels.clamp_min(1).to(torch.promote_types(logits.dtype, torch.float32))
        / pixels.sum(1, keepdim=True).clamp_min(1)
        * (pixels > 0).sum(1, keepdim=True)
    )
    weights = share.reciprocal().gather(1, torch.where(valid, labels, 0).flatten(1)).view(labels.shape)
    return pull(pixel_masked_cross_entropy(logits, labels), weights)


def pixel_segpgd(logits: Logits, labels: Labels, *, share: float, towards: bool = False) -> Tensor:
    """Cross-entropy of each pixel, `[b, h, w]`, that pulls by `share` where it is lost and by `1 - share` elsewhere.

    Lost is a wrong prediction, or the right one when moving towards the labels.

    Source: Gu, Zhao, Tresp, Torr, ECCV 2022 (SegPGD), lambda_t = share.
    Differs: weights act on the gradient only (`pull`).
    """
    lost = (most_likely(logits) == labels) == towards
    return pull(pixel_cross_entropy(logits, labels), torch.where(lost, share, 1 - share))


def pixel_cospgd(logits: Logits, labels: Labels, *, towards: bool = False) -> Tensor:
    """Cross-entropy of each pixel, `[b, h, w]`, that pulls by `cos(softmax(logits), onehot(label))`.

    When moving towards the labels it pulls by `1 - cos`.

    Source: Agnihotri, Jung, Keuper, ICML 2024 (CosPGD), with softmax.
    Differs: weights act on the gradient only (`pull`).
    """
    apart = pixel_cosine(logits.detach(), labels)
    return pull(pixel_cross_entropy(logits, labels), apart if towards else 1 - apart)


def total_variation(images: Images, masks: Mask | None = None) -> PerImage:
    """Mean absolute difference of neighbouring values, down and right, `[b]`, in units of images in [0, 1].

    Args:
        images: `[b, 3, h, w]`.
        masks: bool `[b, h, w]`: only pairs with a pixel in the mask count, None all; 0 where there is no pair.
    """
    masks = torch.ones_like(images[:, 0], dtype=torch.bool) if masks is None else masks
    total = count = images.new_zeros(len(images))
    for axis in (1, 2):
        counted = (
            masks.narrow(axis, 1, masks.shape[axis] - 1) | masks.narrow(axis, 0, masks.shape[axis] - 1)
        ).unsqueeze(1)
        total = total + torch.where(counted, images.diff(dim=axis + 1).abs(), 0).flatten(1).sum(1)
        count = count + images.shape[1] * counted.flatten(1).sum(1)
    return total / count.clamp_min(1)


def mean_over_pixels(loss: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The objective that averages a per-pixel loss `(logits, labels) -> [b, h, w]` over each image's labelled pixels."""

    return partial(_mean_loss, loss)


def _mean_loss(loss: Callable[[Tensor, Tensor], Tensor], network: Network, images: Tensor, labels: Tensor) -> PerImage:
    return image_mean(loss(network(images), labels), labels)


def cross_entropy(network: Network, images: Tensor, labels: Labels) -> PerImage:
    """Objective: mean cross-entropy over the labelled pixels of each image, `[b]`."""
    return image_mean(pixel_cross_entropy(network(images), labels), labels)


def wrong_pixels(network: Network, images: Tensor, labels: Labels) -> PerImage:
    """Share of the labelled pixels of each image that the network labels otherwise, `[b]`, 0 to 1. No gradient.

    What attacks are judged by; an objective for those that need no gradient. An image of void only has 0.
    """
    valid = labels != IGNORE
    wrong = (network.predict(images) != labels) & valid
    return wrong.flatten(1).sum(1).to(images.dtype) / valid.flatten(1).sum(1).clamp_min(1)


OBJECTIVES: dict[str, Objective] = {
    "cross_entropy": cross_entropy,
    "masked_cross_entropy": mean_over_pixels(pixel_masked_cross_entropy),
    "balanced_masked_cross_entropy": mean_over_pixels(pixel_balanced_masked_cross_entropy),
    "margin": mean_over_pixels(pixel_margin),
    "jensen_shannon": mean_over_pixels(pixel_jensen_shannon),
    "cosine": mean_over_pixels(pixel_cosine),
    "wrong_pixels": wrong_pixels,
}
"""Objectives that a spec may name."""


def balanced(class_pixels: Sequence[int] | None) -> Objective:
    """The objective of `pixel_balanced_masked_cross_entropy` with these counts; None: those of each image.

    Raises:
        SpecError: a count is negative, or all are 0.
    """
    if class_pixels is not None and (min(class_pixels, default=0) < 0 or not any(class_pixels)):
        raise SpecError(f"expected numbers of pixels, 0 or more, got {class_pixels}; try robustseg doctor --all")
    return mean_over_pixels(partial(pixel_balanced_masked_cross_entropy, class_pixels=class_pixels))


def objective(name: str | Objective) -> Objective:
    """The objective of this name; a callable is returned as it is.

    `balanced_masked_cross_entropy:1200,340,…` gives the pixels of each class.

    Raises:
        SpecError: the name is unknown.
    """
    if callable(name):
        return name
    if name.startswith("balanced_masked_cross_entropy:"):
        return balanced(_counts(name))
    if name not in OBJECTIVES:
        raise SpecError(f"expected an objective, got '{name}'; try {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def _counts(name: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in name.partition(":")[2].split(","))
    except ValueError as error:
        raise SpecError(
            f"expected whole numbers after the colon, got '{name}'; try '{name.partition(':')[0]}:1200,340'"
        ) from error
