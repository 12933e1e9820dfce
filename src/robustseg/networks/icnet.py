"""ICNet: an image at three sizes, deep work on the smallest and little on the largest, fused step by step (2018)."""

import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core.registry import network
from robustseg.core.spaces import Classes, label_space
from robustseg.networks.adapters import Adapted
from robustseg.networks.encoders import ResNet, build_encoder, on_images, scaled
from robustseg.networks.pspnet import BINS, resized_like, unit


class CascadeFusion(nn.Module):
    """A coarse map, doubled, and one of that size: both brought to the same channels and added (Fig. 4 of the paper).

    Args:
        coarse, fine, outputs: channels.
    """

    def __init__(self, coarse: int, fine: int, outputs: int):
        super().__init__()
        self.coarse = nn.Sequential(
            nn.Conv2d(coarse, outputs, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(outputs)
        )
        self.fine = nn.Sequential(nn.Conv2d(fine, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """`[b, coarse, h / 2, w / 2]` and `[b, fine, h, w]` to `[b, outputs, h, w]`."""
        return (self.coarse(resized_like(coarse, fine)) + self.fine(fine)).relu()


class ICNet(nn.Module):
    """Three branches; the image at half size goes on to the deep branch at a quarter, as in the authors' code.

    Args:
        encoder: undilated; it will be dilated. classes: how many. width: factor on the channels of the heads.
    """

    def __init__(self, encoder: ResNet, classes: int, width: float):
        super().__init__()
        encoder.dilate()
        self.encoder = encoder
        deep, inner, small, large = (scaled(c, width) for c in (512, 256, 64, 128))
        self.high = nn.Sequential(
            unit(3, small, 3, stride=2), unit(small, small, 3, stride=2), unit(small, large, 3, stride=2)
        )
        self.after_pyramid = unit(encoder.channels[4], deep, 1)
        self.fuse_middle = CascadeFusion(deep, encoder.channels[2], inner)
        self.fuse_high = CascadeFusion(inner, large, inner)
        self.classifier = nn.Conv2d(inner, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """`[b, 3, h, w]`, multiples of 32, to logits `[b, classes, h / 4, w / 4]`."""
        body = self.encoder
        shared, *others = body.layer2
        stem = body.relu(body.bn1(body.conv1(_times(images, 0.5))))
        middle = shared(body.layer1(body.maxpool(stem)))  # 1/16
        low = _times(middle, 0.5)  # 1/32
        for layer in (*others, body.layer3, body.layer4):
            low = layer(low)
        fused = self.fuse_middle(self.after_pyramid(_with_averages(low)), middle)
        return self.classifier(_times(self.fuse_high(fused, self.high(images)), 2.0))


def _with_averages(x: Tensor) -> Tensor:
    """A map and its averages over four grids, summed."""
    first, second, third, fourth = (resized_like(F.adaptive_avg_pool2d(x, cells), x) for cells in BINS)
    return x + first + second + third + fourth


def _times(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


@network("icnet")
def icnet(
    *, classes: Classes = "camvid", encoder: str = "resnet50", width: float = 0.5, encoder_weights: str | None = None
) -> Adapted:
    """ICNet on a ResNet; logits at 1/4 of the size, resized.

    Args:
        classes: a label space, the name of a known one, class names or their number.
        encoder: `resnet18`, `resnet34`, `resnet50`, `resnet101`.
        width: factor on every channel count; 0.5 is the paper, 6.7 million parameters with `resnet50`.
        encoder_weights: `imagenet` starts from pretrained weights, which are downloaded, at width 1; None starts from
            nothing.

    Raises:
        SpecError: an argument is unknown. RobustsegError: the weights cannot be downloaded.

    Source: Zhao, Qi, Shen, Shi, Jia: ICNet, ECCV 2018, Figs. 2 and 4, and the authors' published network.
    Differs: no cascade label guidance: the losses at 1/16 and 1/8 in training, which do not change what the trained
        network computes; half the channels from the start, where the paper prunes a trained network; torchvision's
        ResNet, whose first layer is one 7x7 and not three 3x3 convolutions.
    """
    body = build_encoder((ResNet,), encoder, width=width, weights=encoder_weights)
    module = ICNet(body, len(label_space(classes)), width)
    return on_images(module, "icnet", classes, divisor=32, encoder=encoder, width=width)
