"""A network that is a row of layers: images are padded to what it can halve, and the logits are cropped back."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, fx, nn

from robustseg.core.errors import SpecError
from robustseg.core.types import Images, Logits, Network


class Seen(NamedTuple):
    """What a network gave on the way: logits `[b, k, h, w]` and feature maps by name."""

    logits: Tensor
    features: dict[str, Tensor]


WIDEST = 16
"""The largest factor on the channel counts of an architecture."""


def require_width(width: float) -> None:
    """Raise unless a factor on channel counts is above 0 and at most `WIDEST`.

    Raises:
        SpecError: it is not.
    """
    if not 0 < width <= WIDEST:
        raise SpecError(f"expected a width above 0, at most {WIDEST}, got {width}; try width=0.5")


class LayeredNetwork(Network):
    """Runs its children in the order in which they were set, a `Sequential` block by block; the last gives the logits.

    Sizes that are no multiple of 8 are padded by repeating the border.
    """

    def forward(self, images: Images) -> Logits:
        """Logits `[b, k, h, w]` at the size of the images; after the k classes may stand others."""
        return self.seen(images, ()).logits

    def features(self, images: Images, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Outputs, after the activation, of each layer and of each block (`stage1.0`, …), without the logits.

        Args:
            images: `[b, 3, h, w]`.
            names: only these; what comes after the last of them is not computed. None: all.
        """
        if names is None:
            return dict(list(self._outputs(images))[:-1])
        found: dict[str, Tensor] = {}
        for name, x in self._outputs(images):
            if name in names:
                found[name] = x
            if len(found) == len(set(names)):
                break
        return found

    def seen(self, images: Images, names: Collection[str]) -> Seen:
        """Logits and the features of these names, from one pass."""
        height, width = images.shape[-2:]
        found: dict[str, Tensor] = {}
        for name, x in self._outputs(images):
            logits = x
            if name in names:
                found[name] = x
        return Seen(_cropped(logits, height, width), found)

    def _outputs(self, images: Images) -> Iterator[tuple[str, Tensor]]:
        x = _padded(images)
        memory: list[Tensor] = []
        for name, layer in self.named_children():
            blocks = layer.named_children() if isinstance(layer, nn.Sequential) else [("", layer)]
            for block_name, block in blocks:
                x = self._through(block, x, memory)
                yield (f"{name}.{block_name}" if block_name else name), x

    def _through(self, block: nn.Module, x: Tensor, memory: list[Tensor]) -> Tensor:
        """One block; `memory` is what blocks hand to later ones."""
        return block(x)


# Kept whole when the network is traced, so that a size that needs neither pays for neither.


@fx.wrap
def _padded(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    if height % 8 == 0 and width % 8 == 0:
        return images
    return F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")


@fx.wrap
def _cropped(logits: Tensor, height: int, width: int) -> Tensor:
    return logits if logits.shape[-2:] == (height, width) else logits[..., :height, :width]
