"""Joint transforms for training: scale, crop, flip and colour, each draw from the image's own stream."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from robustseg.datasets.views import resize_image, resize_labels
from robustseg.records import IGNORE
from robustseg.types import ImageRng, Sample


class Augmentation(NamedTuple):
    """What training may do to an image and its labels.

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
        size = tuple(max(1, round(s * factor)) for s in sample.image.shape[-2:])
        image, labels = resize_image(sample.image, size), resize_labels(sample.labels, size)
        image, labels = _crop(image, labels, self.crop, draw[1], draw[2])
        if self.flip and draw[3] < 0.5:
            image, labels = image.flip(-1), labels.flip(-1)
        gains = [1 + self.colour * (2 * d - 1) for d in draw[4:7]]
        return Sample(_colour(image, *gains), labels, sample.id)


def _crop(image: Tensor, labels: Tensor, crop: tuple[int, int], down: float, right: float) -> tuple[Tensor, Tensor]:
    missing = [max(0, c - s) for c, s in zip(crop, image.shape[-2:], strict=True)]
    if any(missing):
        border = (0, missing[1], 0, missing[0])
        image = F.pad(image[None], border, mode="replicate")[0]
        labels = F.pad(labels, border, value=IGNORE)
    top = round(down * (image.shape[-2] - crop[0]))
    left = round(right * (image.shape[-1] - crop[1]))
    window = (..., slice(top, top + crop[0]), slice(left, left + crop[1]))
    return image[window], labels[window]


def _colour(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    image = image * brightness
    image = (image - image.mean()) * contrast + image.mean()
    grey = image.mean(0, keepdim=True)
    return (grey + (image - grey) * saturation).clamp(0, 1)
