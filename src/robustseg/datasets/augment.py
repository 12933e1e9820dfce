"""Joint transforms for training: scale, crop, flip and colour, each draw from the image's own stream."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.core.types import Sample
from robustseg.datasets.views import resize_image, resize_intrinsics, resize_labels

NEIGHBOURS = ("previous", "next")
"""The extras that are frames, and are treated as the image is."""


class Augmentation(NamedTuple):
    """What training may do to an image, its labels, and the frames before and after it with their intrinsics.

    All other extras are left out, as the poses are, which mean another motion once an image is mirrored.

    Args:
        crop: (height, width) of the result; what lies outside the image is filled with its border and void labels.
        scale: range of the random factor on the image's size, drawn log-uniformly.
        flip: whether to mirror half of the images.
        colour: largest relative change of brightness, contrast and saturation.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.75, 1.5)
    flip: bool = True
    colour: float = 0.3

    def __call__(self, sample: Sample, rng: ImageRng) -> Sample:
        """One draw; `rng` holds the stream of this image alone."""
        draw = rng.uniform((7,), sample.image[None])[0].tolist()
        low, high = self.scale
        factor = low * (high / low) ** draw[0]
        frames = [sample.image, *(sample.extras[name] for name in NEIGHBOURS if name in sample.extras)]
        size = tuple(max(1, round(s * factor)) for s in sample.image.shape[-2:])
        image, labels = resize_image(torch.cat(frames), size), resize_labels(sample.labels, size)
        top, left = (round(d * max(0, s - c)) for d, s, c in zip(draw[1:3], size, self.crop, strict=True))
        image, labels = _crop(image, labels, self.crop, top, left)
        mirrored = self.flip and draw[3] < 0.5
        if mirrored:
            image, labels = image.flip(-1), labels.flip(-1)
        gains = [1 + self.colour * (2 * d - 1) for d in draw[4:7]]
        image, *others = (_colour(frame, *gains) for frame in image.split(3))
        extras = dict(zip([name for name in NEIGHBOURS if name in sample.extras], others, strict=True))
        if "intrinsics" in sample.extras:
            seen = resize_intrinsics(sample.extras["intrinsics"], sample.image.shape[-2:], size)
            seen[:2, 2] -= torch.tensor([left, top])
            if mirrored:
                seen[0, 2] = self.crop[1] - 1 - seen[0, 2]
            extras["intrinsics"] = seen
        return Sample(image, labels, sample.id, extras)


def _crop(image: Tensor, labels: Tensor, crop: tuple[int, int], top: int, left: int) -> tuple[Tensor, Tensor]:
    missing = [max(0, c - s) for c, s in zip(crop, image.shape[-2:], strict=True)]
    if any(missing):
        border = (0, missing[1], 0, missing[0])
        image = F.pad(image[None], border, mode="replicate")[0]
        labels = F.pad(labels, border, value=IGNORE)
    window = (..., slice(top, top + crop[0]), slice(left, left + crop[1]))
    return image[window], labels[window]


def _colour(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    image = image * brightness
    image = (image - image.mean()) * contrast + image.mean()
    grey = image.mean(0, keepdim=True)
    return (grey + (image - grey) * saturation).clamp(0, 1)
