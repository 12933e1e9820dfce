"""Input transformations as networks: what an image goes through before another network labels it.

As defences they stop attackers who do not know of them. Here both kinds of attacker take one argument: the naive one
attacks the network inside (`source` of `evaluate`), the adaptive one the front itself. His gradient is exact where the transformation
has one. Where it rounds, it is that of `soft()`: of a smooth likeness, or straight through, as if what the network sees had not been
rounded. A front that draws does so from the attack's streams, and `draws=` averages over several.

Sources: Guo, Rana, Cisse, van der Maaten, ICLR 2018 (JPEG, bit depth and others as defences); Xu, Evans, Qi, NDSS 2018 (bit depth,
median); Xie et al., ICLR 2018 (random resizing and padding); Athalye, Carlini, Wagner, ICML 2018 (why none of them holds:
straight through what rounds, BPDA, and the expectation over draws, EOT).
"""

import hashlib
import io
import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from robustseg.core.errors import ShapeError, SpecError
from robustseg.core.levels import to_8bit
from robustseg.core.random import ImageRng
from robustseg.core.registry import network
from robustseg.core.types import Images, Logits, Network
from robustseg.networks.adapters import resized
from robustseg.networks.around import Around
from robustseg.networks.smooth_jpeg import smooth_jpeg


class Front(Around):
    """A network that sees transformed images; a subclass says how they are transformed."""

    def transform(self, images: Images) -> Images:
        """What the network inside sees, `[b, 3, h, w]` in [0, 1]."""
        return images

    def forward(self, images: Images) -> Logits:
        """The logits of the transformed images, `[b, k, h, w]`."""
        return self.network(self.transform(images))

    def features(self, images: Images) -> dict[str, Tensor]:
        """What the network inside computes of the transformed images."""
        return self.network.features(self.transform(images))

    def members(self, images: Images) -> tuple[Logits, ...]:
        """What those that the network inside decides among say of the transformed images."""
        return self.network.members(self.transform(images))


class RoundingFront(Front):
    """A front that rounds, and so has no gradient; attacks take that of `soft()`. A subclass says how it rounds."""

    softly = False

    def rounded(self, images: Images) -> Images:
        """What the network inside sees, without a gradient."""
        return images.detach()

    def approximated(self, images: Images) -> Images:
        """What the network inside sees, to rounding, with the gradient of the images themselves."""
        return images + (self.rounded(images) - images).detach()

    def transform(self, images: Images) -> Images:
        """The rounded images, `[b, 3, h, w]`; in the stand-in the approximated ones."""
        return self.approximated(images) if self.softly else self.rounded(images)

    def soft(self) -> Network:
        """The same with a gradient."""
        return self.with_(network=self.network.soft(), softly=True)


@network("jpeg")
class Jpeg(RoundingFront):
    """A network that sees images as JPEG files leave them.

    Args:
        network: the one inside.
        quality: 1 to 95, as libjpeg counts; colours are stored at half the height and width (4:2:0).
        gradient: what attacks follow: `smooth`, that of the same coding with a cubic in place of rounding (`smooth_jpeg`), or
            `straight_through`, as if the file left the image as it was.

    Raises:
        SpecError: another quality.

    Source: Guo et al., ICLR 2018 (quality 75); gradients of Athalye, Carlini, Wagner, ICML 2018, and of Shin and Song, NIPS 2017 workshop.
    """

    def __init__(
        self,
        network: Network,
        *,
        quality: int = 75,
        gradient: Literal["smooth", "straight_through"] = "smooth",
    ):
        if not 1 <= quality <= 95:
            raise SpecError(f"expected a quality of 1 to 95, got {quality}; try quality=75")
        super().__init__(network, "jpeg", quality=quality, gradient=gradient)
        self.quality, self.gradient = quality, gradient

    def rounded(self, images: Images) -> Images:
        """The images as 8-bit JPEG files, written and read by libjpeg."""
        levels = to_8bit(images.detach()).cpu().permute(0, 2, 3, 1).numpy()
        back = np.stack([np.asarray(Image.open(self._file(level))) for level in levels])
        return torch.from_numpy(back).permute(0, 3, 1, 2).to(images) / 255

    def approximated(self, images: Images) -> Images:
        """The images with a gradient: straight through libjpeg, or through the smooth coding."""
        if self.gradient == "straight_through":
            return super().approximated(images)
        written = Image.open(self._file(np.zeros((8, 8, 3), np.uint8)))
        tables = [images.new_tensor(table).view(8, 8) for table in written.quantization.values()]  # type: ignore[attr-defined]
        return smooth_jpeg(images, *tables)

    def _file(self, levels: np.ndarray) -> io.BytesIO:
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "JPEG", quality=self.quality, subsampling="4:2:0")
        return file


@network("bit_depth")
class BitDepth(RoundingFront):
    """A network that sees images of fewer gray levels.

    Args:
        network: the one inside. bits: of each value, 1 to 8: 2^bits levels.

    Raises:
        SpecError: another number of bits.

    Source: Xu, Evans, Qi, NDSS 2018, section III.
    """

    def __init__(self, network: Network, *, bits: int = 4):
        if not 1 <= bits <= 8:
            raise SpecError(f"expected 1 to 8 bits, got {bits}; try bits=4")
        super().__init__(network, "bit_depth", bits=bits)
        self.bits = bits

    def rounded(self, images: Images) -> Images:
        """The nearest of the levels."""
        levels = 2**self.bits - 1
        return (images.detach() * levels).round() / levels


@network("gaussian_blur")
class GaussianBlur(Front):
    """A network that sees blurred images; the gradient is exact.

    Args:
        network: the one inside. sigma: in pixels; the kernel reaches three of them, and images must be larger than it.

    Raises:
        SpecError: sigma is not above 0.
    """

    def __init__(self, network: Network, *, sigma: float = 1.0):
        if not 0 < sigma < math.inf:
            raise SpecError(f"expected sigma above 0, got {sigma}; try sigma=1.0")
        super().__init__(network, "gaussian_blur", sigma=sigma)
        self.sigma = sigma

    def transform(self, images: Images) -> Images:
        """The blurred images; the border is mirrored."""
        side = 2 * math.ceil(3 * self.sigma) + 1
        return gaussian_blur(images, [side, side], [self.sigma, self.sigma])


@network("median")
class Median(Front):
    """A network that sees the median of each pixel's neighbourhood, colour by colour; the gradient is exact.

    Args:
        network: the one inside. side: of the square neighbourhood, in pixels, odd.

    Raises:
        SpecError: the side is even or below 1.

    Source: Xu, Evans, Qi, NDSS 2018, section III.
    """

    def __init__(self, network: Network, *, side: int = 3):
        if side < 1 or side % 2 == 0:
            raise SpecError(f"expected an odd side of at least 1 pixel, got {side}; try side=3")
        super().__init__(network, "median", side=side)
        self.side = side

    def transform(self, images: Images) -> Images:
        """The medians; the border is repeated."""
        padded = F.pad(images, 4 * (self.side // 2,), mode="replicate")
        return padded.unfold(2, self.side, 1).unfold(3, self.side, 1).flatten(-2).median(-1).values


@network("resize_and_pad")
class ResizeAndPad(Around):
    """A network that sees each image at a random size, at a random place on a black canvas.

    Every image has draws of its own, found from its content: the same image gives the same answer, and one that differs anywhere
    another draw, which whoever changed it cannot know. `draw(rng)` fixes draws of the stream for a batch.

    Args:
        network: the one inside.
        grow: how much larger than the image the canvas is, as a share of height and width. The size is drawn between the two.

    Raises:
        SpecError: it would shrink.

    Source: Xie, Wang, Zhang, Ren, Yuille, ICLR 2018 (299 to at most 331 pixels).
    Differs: they classify; here the image's part of the logits is cut out and brought back to its size.
    """

    drawn: Tensor | None = None

    def __init__(self, network: Network, *, grow: float = 0.1):
        if not 0 <= grow < math.inf:
            raise SpecError(f"expected grow of at least 0, got {grow}; try grow=0.1")
        super().__init__(network, "resize_and_pad", grow=grow)
        self.grow = grow

    def draw(self, rng: ImageRng) -> Network:
        """The same with a size and a place for each image of the stream."""
        return self.with_(network=self.network.draw(rng), drawn=rng.uniform((3,), torch.zeros(len(rng))))

    def forward(self, images: Images) -> Logits:
        """The logits of the image's part of the canvas, `[b, k, h, w]`.

        Raises:
            ShapeError: a draw was made for another number of images.
        """
        drawn = _drawn_by_content(images) if self.drawn is None else self.drawn
        if len(drawn) != len(images):
            raise ShapeError(f"expected the {len(drawn)} images of the draw, got {len(images)}")
        size = images.shape[-2:]
        canvas = [round((1 + self.grow) * n) for n in size]
        boxes = [_box(row, size, canvas) for row in drawn.tolist()]
        logits = self.network(
            torch.stack([_placed(image, *box, canvas) for image, box in zip(images, boxes, strict=True)])
        )
        parts = [
            resized(one[None, :, top : top + height, left : left + width], size)
            for one, (top, left, height, width) in zip(logits, boxes, strict=True)
        ]
        return torch.cat(parts)


def _drawn_by_content(images: Images) -> Tensor:
    contents = [hashlib.sha256(image.detach().cpu().contiguous().numpy().tobytes()).hexdigest() for image in images]
    return ImageRng(0, contents).uniform((3,), images)


def _box(drawn: list[float], size: torch.Size, canvas: list[int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of an image on the canvas, from three numbers in [0, 1)."""
    height, width = (n + math.floor(drawn[0] * (most - n + 1)) for n, most in zip(size, canvas, strict=True))
    top, left = (math.floor(u * (most - n + 1)) for u, n, most in zip(drawn[1:], (height, width), canvas, strict=True))
    return top, left, height, width


def _placed(image: Tensor, top: int, left: int, height: int, width: int, canvas: list[int]) -> Tensor:
    around = (left, canvas[1] - left - width, top, canvas[0] - top - height)
    return F.pad(resized(image[None], (height, width))[0], around)
