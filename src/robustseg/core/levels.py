"""Images of 8 bits: the one place where values in [0, 1] become the levels 0 to 255 that an image file stores."""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", np.ndarray, Tensor)
else:
    Array = Any

SLACK = 1e-4
"""Levels that rounding errors may move a value by: 8/255 in float32 stays 8. It is 4e-7 of the range of an image."""


def to_8bit(images: Array, *, towards: Array | None = None) -> Array:
    """The levels of images, uint8 of the same shape and library: `round(255 x)`, ties to the even level.

    Args:
        images: numpy array or torch tensor of any shape, float, in [0, 1]; values outside become 0 or 255.
        towards: the images that these were made from. A value that differs from its original then goes to the next level
            in the direction of the original and not to the nearest, so that a change within a budget stays within it. If
            the original is no whole level, the result may lie on its other side, by less than one level.

    Returns:
        Levels 0 to 255: what a PNG file of the images holds. `to_8bit(levels / 255)` gives the same levels again.
    """
    levels: Any = images * 255
    rounded = levels.round()
    if towards is not None:
        down, up = (levels + SLACK) // 1, -((SLACK - levels) // 1)
        rounded = down * (images > towards) + up * (images < towards) + rounded * (images == towards)
    whole: Any = rounded.clip(0, 255)
    return whole.astype(np.uint8) if isinstance(images, np.ndarray) else whole.byte()
