"""SegNet: VGG, and its mirror image that unpools where VGG pooled (2017)."""

import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core.registry import network
from robustseg.core.spaces import Classes, label_space
from robustseg.networks.adapters import Adapted
from robustseg.networks.encoders import VGG, build_encoder, on_images


class SegNet(nn.Module):
    """Each pooling hands its positions to the unpooling that mirrors it; nothing else passes from side to side.

    Args:
        encoder: undilated. classes: how many.
    """

    def __init__(self, encoder: VGG, classes: int):
        super().__init__()
        self.encoder = encoder
        mirrored = [layer for layer in encoder.features if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))][::-1]
        self.decoder = nn.ModuleList(_mirrored(layer) for layer in mirrored[:-1])
        self.classifier = nn.Conv2d(encoder.channels[0], classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """`[b, 3, h, w]`, any size, to logits `[b, classes, h, w]`."""
        x, pooled = images, []
        for layer in self.encoder.features:
            if isinstance(layer, nn.MaxPool2d):
                size = x.shape[-2:]
                x, positions = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
                pooled.append((positions, size))
            else:
                x = layer(x)
        for layer in self.decoder:
            x = layer(x, *pooled.pop()) if isinstance(layer, nn.MaxUnpool2d) else layer(x)
        return self.classifier(x)


def _mirrored(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Conv2d):
        return nn.MaxUnpool2d(2)
    back = nn.Conv2d(layer.out_channels, layer.in_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(back.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(back, nn.BatchNorm2d(layer.in_channels), nn.ReLU(inplace=True))


@network("segnet")
def segnet(
    *, classes: Classes = "camvid", encoder: str = "vgg16_bn", width: float = 1.0, encoder_weights: str | None = None
) -> Adapted:
    """SegNet on a VGG; logits at the size of the images.

    Args:
        classes: a label space, the name of a known one, class names or their number.
        encoder: `vgg11_bn`, `vgg13_bn`, `vgg16_bn`, `vgg19_bn`, or without `_bn`.
        width: factor on every channel count; 1 is the paper, 29 million parameters with `vgg16_bn`.
        encoder_weights: `imagenet` starts from pretrained weights, which are downloaded; None starts from nothing.

    Raises:
        SpecError: an argument is unknown. RobustsegError: the weights cannot be downloaded.

    Source: Badrinarayanan, Kendall, Cipolla: SegNet, PAMI 39(12), 2017, Fig. 2.
    Differs: images are normalised by ImageNet's mean and deviation, not by local contrast.
    """
    body = build_encoder((VGG,), encoder, width=width, weights=encoder_weights)
    module = SegNet(body, len(label_space(classes)))
    return on_images(module, "segnet", classes, divisor=None, encoder=encoder, width=width)
