"""VGG and ResNet as five maps, each half the size of the one before: what the heads of the papers stand on.

Made of torchvision's layers under torchvision's names, so that its ImageNet weights fit. Two things are added: a width,
so that a network can be trained on few images, and dilation of all of them (torchvision dilates bottlenecks only).
"""

import difflib
import itertools
from typing import ClassVar, TypeVar

from torch import Tensor, nn
from torchvision import models
from torchvision.models import resnet, vgg

from robustseg.core.errors import SpecError
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.networks.adapters import IMAGENET_MEAN, IMAGENET_STD, Adapted, Input
from robustseg.networks.layered import require_width
from robustseg.networks.online import TORCH, online

VGGS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
"""Name -> the column of the table of its paper."""

Block = type[resnet.BasicBlock] | type[resnet.Bottleneck]

RESNETS: dict[str, tuple[Block, tuple[int, ...]]] = {
    "resnet18": (resnet.BasicBlock, (2, 2, 2, 2)),
    "resnet34": (resnet.BasicBlock, (3, 4, 6, 3)),
    "resnet50": (resnet.Bottleneck, (3, 4, 6, 3)),
    "resnet101": (resnet.Bottleneck, (3, 4, 23, 3)),
}
"""Name -> its block and how many of them in each layer."""


class Encoder(nn.Module):
    """Five maps of an image, each half the size of the one before, until it is dilated.

    Attributes:
        names: of all its kinds. channels: of the five maps.
    """

    names: ClassVar[tuple[str, ...]]
    channels: list[int]

    def forward(self, images: Tensor) -> list[Tensor]:
        """`[b, 3, h, w]` to five maps `[b, channels[i], …]`, of h / 2 to h / 32, or to h / 8 where dilated."""
        raise NotImplementedError

    def dilate(self) -> None:
        """Keep the size after the third map: what took a stride takes none, what follows it is spread instead."""
        raise NotImplementedError


class VGG(Encoder):
    """The convolutions of a VGG; the maps are what its poolings give, `pool1` to `pool5`.

    Args:
        name: one of `names`, the depth; `_bn` has batch normalisation. width: factor on every channel count.

    Source: Simonyan, Zisserman, ICLR 2015, Table 1.
    """

    names = tuple(name + norm for name in VGGS for norm in ("", "_bn"))

    def __init__(self, name: str, width: float):
        super().__init__()
        column = [c if isinstance(c, str) else scaled(c, width) for c in vgg.cfgs[VGGS[name.removesuffix("_bn")]]]
        self.features = vgg.make_layers(column, batch_norm=name.endswith("_bn"))
        self.pools = [i for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self.channels = [int(c) for c, following in itertools.pairwise(column) if following == "M"]

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        x, pooled = images, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.pools:
                pooled.append(x)
        return pooled

    def dilate(self) -> None:
        """See `Encoder`: `pool4` and `pool5` look at 3x3 instead of 2x2 values."""
        *_, fourth, fifth = self.pools
        for pool in (fourth, fifth):
            self.features[pool] = nn.MaxPool2d(3, stride=1, padding=1)
        _spread(self.features[fourth:], 2)


class ResNet(Encoder):
    """A ResNet without its classifier; the maps are those of the stem and of `layer1` to `layer4`.

    Args:
        name: one of `names`. width: factor on every channel count.

    Source: He, Zhang, Ren, Sun, CVPR 2016, Table 1.
    Differs: as in torchvision, a bottleneck halves the size in its 3x3 convolution.
    """

    names = tuple(RESNETS)

    def __init__(self, name: str, width: float):
        super().__init__()
        block, numbers = RESNETS[name]
        stem, *planes = (scaled(c, width) for c in (64, 64, 128, 256, 512))
        self.channels = [stem, *(p * block.expansion for p in planes)]
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _layer(block, self.channels[i], planes[i], numbers[i], stride=1 if i == 0 else 2) for i in range(4)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        stem = self.relu(self.bn1(self.conv1(images)))
        maps = [stem, self.layer1(self.maxpool(stem))]
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps

    def dilate(self) -> None:
        """See `Encoder`: every fourth value of the last map along each axis is what it was before."""
        _spread(self.layer3, 2)
        _spread(self.layer4, 4)


def _layer(block: Block, inputs: int, planes: int, number: int, *, stride: int) -> nn.Sequential:
    """Blocks in a row, the first with the stride and, where size or channels change, a shortcut."""
    outputs = planes * block.expansion
    shortcut = None
    if stride > 1 or inputs != outputs:
        shortcut = nn.Sequential(resnet.conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    others = (block(outputs, planes) for _ in range(number - 1))
    return nn.Sequential(block(inputs, planes, stride, shortcut), *others)


def _spread(layers: nn.Module, dilation: int) -> None:
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            rate = dilation // layer.stride[0]
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = layer.padding = (rate, rate)


def scaled(channels: int, width: float) -> int:
    """A channel count times the width, at least 4."""
    return max(4, round(channels * width))


Family = TypeVar("Family", bound=Encoder)


def build_encoder(
    families: tuple[type[Family], ...], name: str, *, width: float = 1.0, weights: str | None = None
) -> Family:
    """The encoder of this name, undilated.

    Args:
        families: `VGG`, `ResNet` or both. name: a name of theirs. width: factor on every channel count.
        weights: `imagenet` downloads torchvision's; None starts from nothing.

    Raises:
        SpecError: the name is not theirs, the width is not positive, or there are no such weights.
        RobustsegError: the weights cannot be downloaded.
    """
    known = {known: family for family in families for known in family.names}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
        raise SpecError(f"expected an encoder, got '{name}'; try {', '.join(near)}")
    require_width(width)
    if weights not in (None, "imagenet") or (weights and width != 1):
        raise SpecError(
            f"expected encoder_weights=None, or 'imagenet' at width 1, got {weights!r} at width {width}; try None"
        )
    encoder = known[name](name, width)
    _start(encoder)
    if weights:
        with online(f"the ImageNet weights of {name}", TORCH, "encoder_weights=None, or robustseg train --start FILE"):
            state = models.get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=False, check_hash=True)
        encoder.load_state_dict({n: t for n, t in state.items() if not n.startswith(("fc.", "classifier."))})
    return encoder


def fully_convolutional(inputs: int, outputs: int, *, kernel: int = 7, dilation: int = 1) -> nn.Sequential:
    """VGG's two fully connected layers as convolutions, `fc6` and `fc7`: `[b, inputs, h, w] -> [b, outputs, h, w]`.

    Source: Long, Shelhamer, Darrell, CVPR 2015, section 3.1.
    """
    layers = nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.5),
        nn.Conv2d(outputs, outputs, 1),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.5),
    )
    _start(layers)
    return layers


def _start(layers: nn.Module) -> None:
    # As torchvision does for both families; without batch normalisation nothing else lets 16 layers learn.
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def on_images(module: nn.Module, name: str, classes: Classes, *, divisor: int | None, **arguments: object) -> Adapted:
    """A network from a module of this room: images normalised as for ImageNet, padded to a multiple of `divisor`.

    Args:
        module: logits of any size out. name, arguments: of the spec that rebuilds it, beside its classes.
    """
    space = label_space(classes)
    text = "".join(f", {key}={value!r}" for key, value in arguments.items())
    expects = Input(mean=IMAGENET_MEAN, std=IMAGENET_STD, divisor=divisor)
    return Adapted(module, space, expects, f"{name}(classes={classes_text(space)}{text})")
