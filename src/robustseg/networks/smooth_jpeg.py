"""JPEG as a differentiable function of the image: the coding of libjpeg with a cubic in place of rounding.

Colours are stored at half the height and width (4:2:0) and read back as libjpeg does, by a triangle filter.

Source: Shin and Song, JPEG-resistant adversarial images, NIPS 2017 workshop; ITU-T T.81 (JPEG) and T.871 (its colours).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustseg.core.types import Images
from robustseg.networks.adapters import resized

_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def smooth_round(x: Tensor) -> Tensor:
    """`round(x) + (x - round(x))^3`: within an eighth of the nearest integer, with a gradient of 0 to 3/4.

    Source: Shin and Song 2017, equation of the approximated rounding.
    """
    nearest = x.round()
    return nearest + (x - nearest) ** 3


def smooth_jpeg(images: Images, luma: Tensor, chroma: Tensor, *, exact: bool = False) -> Images:
    """What a JPEG file would leave of the images, differentiable.

    Args:
        images: `[b, 3, h, w]` in [0, 1].
        luma, chroma: the quantisation tables, `[8, 8]`, rows are vertical frequencies.
        exact: round as libjpeg does, colours too, and give up the gradient. The result is then within a gray level of libjpeg's on average:
            0.3 to 0.6 on a CamVid frame at quality 20 to 95, which the file itself moves by 4.6 to 1.3.

    Returns:
        Images in [0, 1].
    """
    height, width = images.shape[-2:]
    integers, rounding = (torch.round, torch.round) if exact else (_as_it_is, smooth_round)
    padded = F.pad(integers(255 * images), (0, -width % 16, 0, -height % 16), mode="replicate")
    planes = integers(torch.einsum("kc,bchw->bkhw", padded.new_tensor(_TO_YCC), padded))
    y = _coded(planes[:, :1] - 128, luma, rounding) + 128
    colours = _coded(integers(F.avg_pool2d(planes[:, 1:], 2)), chroma, rounding)
    back = torch.einsum("ck,bkhw->bchw", padded.new_tensor(_TO_RGB), torch.cat([y, resized(colours, y.shape[-2:])], 1))
    return back[..., :height, :width].clamp(0, 255) / 255


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _coded(planes: Tensor, table: Tensor, rounding: Callable[[Tensor], Tensor]) -> Tensor:
    """Planes `[b, c, h, w]` in blocks of 8 x 8, through the cosine transform, quantised, and back."""
    b, c, height, width = planes.shape
    blocks = planes.view(b, c, height // 8, 8, width // 8, 8).transpose(3, 4)
    cosines = _cosines(planes)
    quantised = rounding(cosines @ blocks @ cosines.T / table) * table
    return (cosines.T @ quantised @ cosines).transpose(3, 4).reshape(planes.shape)


def _cosines(like: Tensor) -> Tensor:
    """The matrix of the discrete cosine transform, orthogonal, `[8, 8]`; a row a frequency."""
    n = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * n + 1) * n[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(like)
