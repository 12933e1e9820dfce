"""Noise of a stated strength: Gaussian, uniform, random sign, salt and pepper.

Strength is the root mean square of the change over the values of an image, in units of images in [0, 1], so that noise
and attack share one axis: a change of +-eps everywhere, an FGSM step say, has an RMS of eps. Every noise is clipped to
[0, 1]; clipping and the saturation of salt and pepper move the realised RMS, which is what a run records. Draws come
from `ImageRng` and never depend on the strength: two strengths of one noise are the same draw, scaled.

Source: Klingner, Baer, Fingscheidt, CVPRW 2020, the noise types and the shared axis.
"""

import math

import torch
from torch import Tensor

from robustseg.core.budget import fraction
from robustseg.core.errors import SpecError
from robustseg.core.random import ImageRng
from robustseg.core.registry import noise
from robustseg.core.types import Images


@noise("clean")
def clean(images: Images, *, rng: ImageRng) -> Images:
    """The images themselves: what every perturbation is compared with."""
    return images


@noise("gaussian")
def gaussian(images: Images, *, rms: float | str, rng: ImageRng) -> Images:
    """Add `rms * N(0, 1)` to every value.

    Args:
        images: `[b, 3, h, w]` in [0, 1].
        rms: standard deviation, a number or a fraction such as '8/255'; 0 returns the input exactly.
        rng: one stream an image.

    Returns:
        Images in [0, 1].
    """
    return _add(images, _strength(rms), rng.normal(images.shape[1:], images))


@noise("uniform")
def uniform(images: Images, *, rms: float | str, rng: ImageRng) -> Images:
    """Add a uniform number in `[-a, a]` to every value, `a = sqrt(3) * rms`.

    Args:
        images: `[b, 3, h, w]` in [0, 1].
        rms: root mean square, a number or a fraction such as '8/255'; 0 returns the input exactly.
        rng: one stream an image.

    Returns:
        Images in [0, 1].
    """
    return _add(images, _strength(rms), (2 * rng.uniform(images.shape[1:], images) - 1) * math.sqrt(3))


@noise("sign")
def sign(images: Images, *, rms: float | str, rng: ImageRng) -> Images:
    """Add `+rms` or `-rms` to every value: as large as an L-inf attack of `eps = rms`, and without a plan.

    Args:
        images: `[b, 3, h, w]` in [0, 1].
        rms: size of every change, a number or a fraction such as '8/255'; 0 returns the input exactly.
        rng: one stream an image.

    Returns:
        Images in [0, 1].
    """
    return _add(images, _strength(rms), rng.sign(images.shape[1:], images))


@noise("salt_and_pepper")
def salt_and_pepper(images: Images, *, rms: float | str, match: bool = False, rng: ImageRng) -> Images:
    """Set a share `p = 4 * rms^2` of all values (each channel alone), half to 1 and half to 0.

    The share is exact for a middle gray. A value x that is hit changes by `(x - 0.5)^2 + 0.25` in square on average, so
    the realised RMS is `rms * sqrt(1 + 4 * mean((x - 0.5)^2))`, always at least `rms`. `match=True` divides that out.

    Args:
        images: `[b, 3, h, w]` in [0, 1].
        rms: root mean square of the change, 0 to 0.5, a number or a fraction; 0 returns the input exactly.
        match: rescale p of each image so that its expected RMS is `rms`.
        rng: one stream an image.

    Returns:
        Images in [0, 1].

    Raises:
        SpecError: `rms` is above 0.5, where p would pass 1.

    Source: the code of the authors of Klingner et al. 2020.
    Differs: every value is hit with probability p, where that code draws `p * n` indices with replacement.
    """
    size = _strength(rms)
    if size > 0.5:
        raise SpecError(f"expected rms of salt_and_pepper from 0 to 0.5, got {rms}; try '32/255'")
    shape = images.shape[1:]
    hit, salt = rng.uniform(shape, images), rng.uniform(shape, images) < 0.5
    square = (
        0.25 + (images.double() - 0.5).square().flatten(1).mean(1) if match else images.new_full((len(images),), 0.25)
    )
    share = (size**2 / square).to(images).view(-1, 1, 1, 1)
    return torch.where(hit < share, salt.to(images), images)


def _strength(rms: float | str) -> float:
    size = fraction(rms)
    if not 0 <= size <= 1:
        raise SpecError(f"expected an rms of 0 to 1, images being in [0, 1], got {rms}; try '8/255'")
    return size


def _add(images: Tensor, size: float, draw: Tensor) -> Tensor:
    return (images + size * draw).clamp(0, 1) if size else images.clone()
