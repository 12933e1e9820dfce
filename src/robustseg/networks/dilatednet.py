"""DilatedNet: VGG without its last two poolings, and a context module of convolutions that look ever further (2016)."""

from torch import Tensor, nn

from robustseg.core.errors import SpecError
from robustseg.core.registry import network
from robustseg.core.spaces import Classes, label_space
from robustseg.networks.adapters import Adapted
from robustseg.networks.encoders import VGG, build_encoder, fully_convolutional, on_images, scaled

LEVELS = {8: (1, 1, 2, 4, 8, 16, 1), 10: (1, 1, 2, 4, 8, 16, 32, 64, 1)}
"""Layers of the context module, the last a 1x1 convolution -> dilations of the others, all 3x3."""


class DilatedNet(nn.Module):
    """Logits at 1/8 of the size by the front end, then looked at in ever larger context.

    Args:
        encoder: undilated; it will be dilated and lose its last two poolings. classes: how many.
        fully: channels of `fc6` and `fc7`. dilations: of the context module.
    """

    def __init__(self, encoder: VGG, classes: int, fully: int, dilations: tuple[int, ...]):
        super().__init__()
        encoder.dilate()
        for pool in encoder.pools[-2:]:
            encoder.features[pool] = nn.Identity()
        self.encoder = encoder
        self.front = nn.Sequential(
            fully_convolutional(encoder.channels[-1], fully, kernel=7, dilation=4), nn.Conv2d(fully, classes, 1)
        )
        self.context = nn.Sequential()
        for dilation in dilations:
            self.context.append(_identity(classes, 3, dilation))
            self.context.append(nn.ReLU(inplace=True))
        self.context.append(_identity(classes, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """`[b, 3, h, w]`, multiples of 8, to logits `[b, classes, h / 8, w / 8]`."""
        return self.context(self.front(self.encoder(images)[-1]))


def _identity(channels: int, kernel: int, dilation: int) -> nn.Conv2d:
    """A convolution that starts by handing on what it gets, equation 4 of the paper."""
    layer = nn.Conv2d(channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation)
    for tensor in layer.parameters():
        nn.init.dirac_(tensor) if tensor.ndim == 4 else nn.init.zeros_(tensor)
    return layer


@network("dilatednet")
def dilatednet(
    *,
    classes: Classes = "camvid",
    encoder: str = "vgg16",
    width: float = 1.0,
    levels: int = 8,
    encoder_weights: str | None = None,
) -> Adapted:
    """DilatedNet: a VGG front end with the basic context module; logits at 1/8 of the size, resized.

    Args:
        classes: a label space, the name of a known one, class names or their number.
        encoder: `vgg11`, `vgg13`, `vgg16`, `vgg19`, each with `_bn` too.
        width: factor on every channel count of the front end; 1 is the paper, 134 million parameters with `vgg16`.
        levels: layers of the context module: 8, or 10 as the authors took for Cityscapes.
        encoder_weights: `imagenet` starts from pretrained weights, which are downloaded; None starts from nothing.

    Raises:
        SpecError: an argument is unknown. RobustsegError: the weights cannot be downloaded.

    Source: Yu, Koltun: Multi-scale context aggregation by dilated convolutions, ICLR 2016, sections 3 and 4, Table 1.
    Differs: zeros around the maps where the paper reflects the images; front end and context module are trained as
        one; fc6 and fc7 start from nothing; dropout drops whole channels.
    """
    if levels not in LEVELS:
        raise SpecError(f"expected {' or '.join(map(str, LEVELS))} levels of the context module, got {levels}; try 8")
    body = build_encoder((VGG,), encoder, width=width, weights=encoder_weights)
    module = DilatedNet(body, len(label_space(classes)), scaled(4096, width), LEVELS[levels])
    return on_images(module, "dilatednet", classes, divisor=8, encoder=encoder, width=width, levels=levels)
