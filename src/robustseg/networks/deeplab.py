"""DeepLab v2: a dilated encoder at 1/8 of the size and four looks of growing reach, summed (2018)."""

from torch import Tensor, nn

from robustseg.core.registry import network
from robustseg.core.spaces import Classes, label_space
from robustseg.networks.adapters import Adapted
from robustseg.networks.encoders import VGG, Encoder, ResNet, build_encoder, fully_convolutional, on_images, scaled

RATES = (6, 12, 18, 24)
"""Dilations of the four branches, ASPP-L of the paper."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: four 3x3 convolutions of different dilation beside each other, summed.

    Args:
        inputs: channels. classes: how many. fully: each branch goes through fc6 and fc7 of so many channels, as on VGG;
            None: straight to the classes, as on ResNet.
    """

    def __init__(self, inputs: int, classes: int, fully: int | None):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(inputs, classes, 3, padding=rate, dilation=rate)
            if fully is None
            else nn.Sequential(
                fully_convolutional(inputs, fully, kernel=3, dilation=rate), nn.Conv2d(fully, classes, 1)
            )
            for rate in RATES
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[b, inputs, h, w] -> [b, classes, h, w]`."""
        first, second, third, fourth = (branch(x) for branch in self.branches)
        return first + second + third + fourth


class DeepLabV2(nn.Module):
    """Logits at 1/8 of the size from the last map of a dilated encoder.

    Args:
        encoder: undilated; it will be dilated. classes, fully: see `ASPP`.
    """

    def __init__(self, encoder: Encoder, classes: int, fully: int | None):
        super().__init__()
        encoder.dilate()
        self.encoder = encoder
        self.aspp = ASPP(encoder.channels[-1], classes, fully)

    def forward(self, images: Tensor) -> Tensor:
        """`[b, 3, h, w]`, multiples of 8, to logits `[b, classes, h / 8, w / 8]`."""
        return self.aspp(self.encoder(images)[-1])


@network("deeplabv2")
def deeplabv2(
    *, classes: Classes = "camvid", encoder: str = "resnet101", width: float = 1.0, encoder_weights: str | None = None
) -> Adapted:
    """DeepLab v2 (ASPP-L) on a ResNet or a VGG, one scale and without CRF; logits at 1/8 of the size, resized.

    Args:
        classes: a label space, the name of a known one, class names or their number.
        encoder: `resnet18`, `resnet34`, `resnet50`, `resnet101`, `vgg11`, `vgg13`, `vgg16`, `vgg19`, each VGG with
            `_bn` too.
        width: factor on every channel count; 1 is the paper, 44 million parameters with `resnet101`.
        encoder_weights: `imagenet` starts from pretrained weights, which are downloaded; None starts from nothing.

    Raises:
        SpecError: an argument is unknown. RobustsegError: the weights cannot be downloaded.

    Source: Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab, PAMI 40(4), 2018, Figs. 4 and 7.
    Differs: torchvision's ResNet and VGG, whose first three poolings are 2x2; the loss is taken at the size of the
        images, not at 1/8; dropout drops whole channels.
    """
    body = build_encoder((VGG, ResNet), encoder, width=width, weights=encoder_weights)
    fully = scaled(1024, width) if isinstance(body, VGG) else None
    module = DeepLabV2(body, len(label_space(classes)), fully)
    return on_images(module, "deeplabv2", classes, divisor=8, encoder=encoder, width=width)
