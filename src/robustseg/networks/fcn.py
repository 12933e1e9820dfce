"""FCN-8s: an image classifier made fully convolutional, whose coarse scores are refined by two finer maps (2015)."""

import torch
from torch import Tensor, nn

from robustseg.core.registry import network
from robustseg.core.spaces import Classes, label_space
from robustseg.networks.adapters import Adapted
from robustseg.networks.encoders import VGG, Encoder, ResNet, build_encoder, fully_convolutional, on_images, scaled


class FCN8s(nn.Module):
    """Scores at 1/32 of the size, doubled and added to those of `pool4`, doubled and added to those of `pool3`.

    Args:
        encoder: undilated. classes: how many. fully: channels of `fc6` and `fc7`; None leaves both out.
    """

    def __init__(self, encoder: Encoder, classes: int, fully: int | None):
        super().__init__()
        *_, third, fourth, fifth = encoder.channels
        self.encoder = encoder
        self.fc = nn.Identity() if fully is None else fully_convolutional(fifth, fully)
        self.score = nn.Conv2d(fully or fifth, classes, 1)
        self.score_pool4 = nn.Conv2d(fourth, classes, 1)
        self.score_pool3 = nn.Conv2d(third, classes, 1)
        self.double_score = _bilinear(classes)
        self.double_pool4 = _bilinear(classes)

    def forward(self, images: Tensor) -> Tensor:
        """`[b, 3, h, w]`, multiples of 32, to logits `[b, classes, h / 8, w / 8]`."""
        *_, pool3, pool4, pool5 = self.encoder(images)
        coarse = self.double_score(self.score(self.fc(pool5)))
        middle = self.double_pool4(coarse + self.score_pool4(pool4))
        return middle + self.score_pool3(pool3)


def _bilinear(channels: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles the size, and starts as bilinear interpolation."""
    layer = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels)[:, :, None, None] * torch.outer(ramp, ramp))
    return layer


@network("fcn8s")
def fcn8s(
    *, classes: Classes = "camvid", encoder: str = "vgg16", width: float = 1.0, encoder_weights: str | None = None
) -> Adapted:
    """FCN-8s on a VGG, as in the paper, or on a ResNet; logits at 1/8 of the size, resized.

    Args:
        classes: a label space, the name of a known one, class names or their number.
        encoder: `vgg11`, `vgg13`, `vgg16`, `vgg19`, each with `_bn` too, `resnet18`, `resnet34`, `resnet50`,
            `resnet101`.
        width: factor on every channel count; 1 is the paper, 134 million parameters with `vgg16`.
        encoder_weights: `imagenet` starts from pretrained weights, which are downloaded; None starts from nothing.

    Raises:
        SpecError: an argument is unknown. RobustsegError: the weights cannot be downloaded.

    Source: Long, Shelhamer, Darrell: Fully convolutional networks for semantic segmentation, CVPR 2015, Fig. 3.
    Differs: zero padding keeps the size where the paper pads by 100 and crops; the scores do not start at 0; dropout
        drops whole channels; fc6 and fc7 start from nothing; a ResNet has no fc6 and fc7, its `layer2` and `layer3`
        stand for `pool3` and `pool4`.
    """
    body = build_encoder((VGG, ResNet), encoder, width=width, weights=encoder_weights)
    fully = scaled(4096, width) if isinstance(body, VGG) else None
    module = FCN8s(body, len(label_space(classes)), fully)
    return on_images(module, "fcn8s", classes, divisor=32, encoder=encoder, width=width)
