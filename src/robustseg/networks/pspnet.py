"""PSPNet: a dilated encoder at 1/8 of the size, and beside its map the averages of that map over coarse grids (2017).

`smp('PSPNet')` of segmentation_models_pytorch is another network: it ends its encoder after three stages instead of
dilating the last two, and has 1x1 where this has 3x3 and the other way round.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core.registry import network
from robustseg.core.spaces import Classes, label_space
from robustseg.networks.adapters import Adapted
from robustseg.networks.encoders import VGG, Encoder, ResNet, build_encoder, on_images, scaled

BINS = (1, 2, 3, 6)
"""Cells along each axis of the four grids."""


class PyramidPooling(nn.Module):
    """A map, and its averages over four grids, each brought to a quarter of the channels and back to the size.

    Args:
        inputs: channels; the output has twice as many.
    """

    def __init__(self, inputs: int):
        super().__init__()
        self.reductions = nn.ModuleList(unit(inputs, inputs // len(BINS), 1) for _ in BINS)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, inputs, h, w] -> [b, 2 inputs, h, w]`."""
        averages = [
            resized_like(reduction(F.adaptive_avg_pool2d(x, cells)), x)
            for cells, reduction in zip(BINS, self.reductions, strict=True)
        ]
        return torch.cat([x, *averages], 1)


class PSPNet(nn.Module):
    """Logits at 1/8 of the size from the last map of a dilated encoder and its pyramid.

    Args:
        encoder: undilated; it will be dilated. classes: how many. inner: channels of the convolution before the last.
    """

    def __init__(self, encoder: Encoder, classes: int, inner: int):
        super().__init__()
        encoder.dilate()
        self.encoder = encoder
        self.pyramid = PyramidPooling(encoder.channels[-1])
        self.head = nn.Sequential(
            unit(2 * encoder.channels[-1], inner, 3), nn.Dropout2d(0.1), nn.Conv2d(inner, classes, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """`[b, 3, h, w]`, multiples of 8, to logits `[b, classes, h / 8, w / 8]`."""
        return self.head(self.pyramid(self.encoder(images)[-1]))


def unit(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; the size stays, or falls by the stride."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def resized_like(x: Tensor, other: Tensor) -> Tensor:
    """Maps at the size of others, bilinear."""
    return F.interpolate(x, other.shape[-2:], mode="bilinear", align_corners=False)


@network("pspnet")
def pspnet(
    *, classes: Classes = "camvid", encoder: str = "resnet50", width: float = 1.0, encoder_weights: str | None = None
) -> Adapted:
    """PSPNet on a dilated ResNet, as in the paper, or VGG; logits at 1/8 of the size, resized.

    Batches of two images or more train it: of one image, the average over the whole map has no spread to normalise by.

    Args:
        classes: a label space, the name of a known one, class names or their number.
        encoder: `resnet18`, `resnet34`, `resnet50`, `resnet101`, `vgg11`, `vgg13`, `vgg16`, `vgg19`, each VGG with
            `_bn` too.
        width: factor on every channel count; 1 is the paper, 47 million parameters with `resnet50`.
        encoder_weights: `imagenet` starts from pretrained weights, which are downloaded; None starts from nothing.

    Raises:
        SpecError: an argument is unknown. RobustsegError: the weights cannot be downloaded.

    Source: Zhao, Shi, Qi, Wang, Jia: Pyramid scene parsing network, CVPR 2017, Fig. 3.
    Differs: no auxiliary loss at the fourth stage in training; torchvision's ResNet, whose first layer is one 7x7 and not
        three 3x3 convolutions; dropout drops whole channels.
    """
    body = build_encoder((VGG, ResNet), encoder, width=width, weights=encoder_weights)
    module = PSPNet(body, len(label_space(classes)), scaled(512, width))
    return on_images(module, "pspnet", classes, divisor=8, encoder=encoder, width=width)
