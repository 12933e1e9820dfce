"""Do a network's gradients look like the world, and what it paints like an image? Maps, and numbers for them.

Source: Tsipras et al., ICLR 2019 and Santurkar et al., NeurIPS 2019 (gradients of robust classifiers look like what they
see); the measures are ours.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.random import ImageRng
from robustseg.core.types import Images, Labels, Mask, Network, PerImage, device_of, frozen, gradient_in
from robustseg.losses.pixelwise import cross_entropy, total_variation
from robustseg.losses.similarity import ssim
from robustseg.results import metrics
from robustseg.results.record import Counts

KINDS = ("plain", "smooth", "integrated")
SAMPLES = 16
"""Noisy copies of a smooth map, and points on the way of an integrated one."""
NOISE = 0.1
"""Root mean square of the noise of a smooth map, images in [0, 1]."""
COARSE = 0.25
"""Cycles a pixel above which energy counts as high; 0.5 is the finest that pixels can hold."""


def input_gradients(
    network: Network, images: Images, labels: Labels, *, kind: str = "plain", rng: ImageRng | None = None
) -> Images:
    """Where and how an image would have to change for its labels to be likelier, `[b, 3, h, w]`.

    The gradient of the mean log-probability of the labels over the labelled pixels: a map of one class, or of one
    region, is that of a label map that is void elsewhere.

    Args:
        network: left as it was. images: `[b, 3, h, w]` in [0, 1]. labels: `[b, h, w]`, void 255.
        kind: `plain`; `smooth`, the mean over copies with Gaussian noise (Smilkov et al. 2017); `integrated`, the mean on the
            straight way from mid-grey to the image, times the way: its sum over an image is what the mean log-probability gains
            on that way (Sundararajan, Taly, Yan, ICML 2017).
        rng: one stream an image, for `smooth` only.

    Raises:
        SpecError: an unknown kind, or `smooth` without rng.
    """
    if kind not in KINDS or (kind == "smooth" and rng is None):
        raise SpecError(f"expected a kind of {', '.join(KINDS)}, smooth with an rng, got '{kind}'; try plain")
    way = images - 0.5
    total = torch.zeros_like(images)
    with frozen(network), torch.inference_mode(False), torch.enable_grad():
        for point in range(1 if kind == "plain" else SAMPLES):
            leaf = images.clone()
            if kind == "smooth" and rng is not None:
                leaf = images + NOISE * rng.normal(images.shape[1:], images)
            elif kind == "integrated":
                leaf = 0.5 + way * (point + 0.5) / SAMPLES
            leaf.requires_grad_()
            values = -cross_entropy(network.soft(), leaf, labels)
            gradient = gradient_in(values, leaf)
            if gradient is None:
                raise RobustsegError(
                    f"expected a gradient through {network.spec}, got none; try a network whose forward pass is "
                    "differentiable, without detach or no_grad"
                )
            total += gradient
    if kind == "plain":
        return total
    return total / SAMPLES * (way if kind == "integrated" else 1)


def high_frequency_share(maps: Images) -> PerImage:
    """The share of the energy of each map that lies above `COARSE` cycles a pixel, 0 to 1, `[b]`.

    White noise has 1 - pi / 16 = 0.80. Maps fade out towards their border (Hann), so that it does not count as an edge; a map
    that is 0 all over has no share: NaN.
    """
    height, width = maps.shape[-2:]
    fade = [
        torch.hann_window(side + 2, periodic=False, dtype=maps.dtype, device=maps.device)[1:-1]
        for side in (height, width)
    ]
    energy = torch.fft.fft2(maps * fade[0].unsqueeze(1) * fade[1]).abs().square().sum(1)
    vertical, horizontal = (torch.fft.fftfreq(side, device=maps.device) for side in (height, width))
    high = torch.hypot(vertical.unsqueeze(1), horizontal) > COARSE
    return (energy * high).flatten(1).sum(1) / energy.flatten(1).sum(1)


def edge_agreement(maps: Images, images: Images) -> PerImage:
    """How well a map is large where its image has edges: Pearson's correlation over the pixels, -1 to 1, `[b]`.

    The size of the map (over the colours) against the size of the image's gradient (central differences of the grey
    image), both as means over 5x5 pixels, since an edge has two sides. NaN where either is constant.
    """
    grey = images.mean(1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    edges = torch.hypot(padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1])
    sizes = torch.cat([maps.norm(dim=1, keepdim=True), edges], 1)
    near = F.avg_pool2d(sizes, 5, 1, 2, count_include_pad=False).flatten(2)
    mean = near.mean(2, keepdim=True)
    apart = (near - mean) / mean.clamp_min(torch.finfo(near.dtype).tiny)
    first, second = apart.unbind(1)
    lengths = apart.norm(dim=2)
    constant = (lengths < 1e-5 * near.shape[2] ** 0.5).any(1)  # but for rounding
    return torch.where(constant, math.nan, (first * second).sum(1) / lengths.prod(1))


class Fidelity(NamedTuple):
    """A filled hole beside what was there, one value an image, `[b]`.

    Args:
        ssim: structural similarity, mean over the hole.
        psnr: peak signal-to-noise ratio over the hole, in dB; infinite where nothing differs.
        variation: total variation within the hole over that of what was there: above 1 is rougher.
    """

    ssim: Tensor
    psnr: Tensor
    variation: Tensor


def fidelity(filled: Images, original: Images, masks: Mask) -> Fidelity:
    """How like the original the holes were filled.

    Args:
        filled, original: `[b, 3, h, w]` in [0, 1]. masks: bool `[b, h, w]`, True in the hole.
    """
    pixels = masks.flatten(1).sum(1)
    similarity = torch.where(masks, ssim(filled, original), 0).flatten(1).sum(1) / pixels
    apart = torch.where(masks.unsqueeze(1), filled - original, 0).flatten(1)
    mean_square = apart.square().sum(1) / (3 * pixels)
    return Fidelity(
        similarity,
        -10 / math.log(10) * mean_square.log(),
        total_variation(filled, masks) / total_variation(original, masks),
    )


def judged(judge: Network, images: Images, target: Labels, ids: tuple[str, ...]) -> Counts:
    """What a network that took no part sees in images, counted against the label map that they were made for.

    Args:
        judge: left as it was. images: `[b, 3, h, w]`. target: `[b, h, w]`, void where nothing was asked for.
        ids: of the images. Counts of several calls add up with `+`; `metrics.miou` of them is the agreement.
    """
    with frozen(judge), torch.no_grad():
        seen = judge.predict(images.to(device_of(judge)))
    return metrics.count(target.cpu().numpy(), seen.cpu().numpy(), ids, len(judge.label_space))
