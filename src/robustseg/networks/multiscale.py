"""One network at several sizes of the image, its answers fused pixel by pixel."""

import math
from collections.abc import Sequence
from typing import Literal

import torch

from robustseg.core.errors import SpecError
from robustseg.core.registry import network
from robustseg.core.types import Images, Logits, Network
from robustseg.networks.adapters import resized
from robustseg.networks.around import Around


@network("multiscale")
class MultiScale(Around):
    """One network on several sizes of the image; its logits, brought back to full size, are fused pixel by pixel.

    With a single scale it is one branch, with the scale 1 the network itself bit for bit. So an attack on a branch, and how it
    transfers to another one or to the whole, is an attack on `multiscale(NETWORK, scales=(0.5,))` measured on another.
    Trained through the fusion, all branches learn the same weights.

    Args:
        network: shared by all scales.
        scales: of height and width. Resizing is bilinear, of images and of logits.
        fusion: for each class the largest logit, or the mean.

    Raises:
        SpecError: no scales, or one that is not above 0.

    Source: Chen, Papandreou, Kokkinos, Murphy, Yuille, DeepLab (v2), TPAMI 2018, section 3.2: the maximum over 0.5, 0.75 and 1.
    """

    def __init__(
        self, network: Network, *, scales: Sequence[float] = (0.5, 0.75, 1.0), fusion: Literal["max", "mean"] = "max"
    ):
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise SpecError(f"expected scales above 0, got {scales}; try scales=(0.5, 0.75, 1.0)")
        super().__init__(network, "multiscale", scales=tuple(scales), fusion=fusion)
        self.scales, self.fusion = tuple(scales), fusion

    def forward(self, images: Images) -> Logits:
        """The fused logits `[b, k, h, w]`."""
        answers = torch.stack([self._at(scale, images) for scale in self.scales])
        return answers.amax(0) if self.fusion == "max" else answers.mean(0)

    def _at(self, scale: float, images: Images) -> Logits:
        height, width = images.shape[-2:]
        small = resized(images, (max(1, round(scale * height)), max(1, round(scale * width))))
        return resized(self.network(small), (height, width))
