"""Segmentation and depth from one encoder: two decoders that share every feature, and nothing else.

At test time only the encoder and the segmentation decoder run; depth is for training, and for who asks. Where the two
decoders part, the gradients that flow back into the encoder are weighed against each other, which changes no output.

Sources: Klingner, Bär, Fingscheidt, CVPR Workshops 2020 (both tasks for robustness, the weights of the gradients);
Godard et al., ICCV 2019 (decoder and disparities).
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter

from robustseg.core.errors import SpecError
from robustseg.core.registry import network
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.core.types import Depth, Images, Logits, frozen
from robustseg.depth.geometry import disparity_to_depth
from robustseg.networks.adapters import IMAGENET_MEAN, IMAGENET_STD, Adapted, Input
from robustseg.networks.erfnet import ERFNet
from robustseg.networks.layered import require_width
from robustseg.networks.online import HUB, TORCH, online

CHANNELS = {16: 256, 8: 128, 4: 64, 2: 32, 1: 16}
"""Of a decoder at an n-th of the image's size."""
HALVED = {*CHANNELS, 2 * max(CHANNELS)}
"""At which n-ths of the image's size an encoder may have maps."""
MEAN_DISPARITY = 0.1
"""Of every image, which makes the mean of its inverse depth about 1 / m.

Video leaves the scale open. A network free to choose it can explain away what it does not understand: it moves all points so
far off that nothing moves any more, or so near that its answers have no room left, and learns no depth after that.
"""


class Both(NamedTuple):
    """Logits `[b, k, h, w]` of some images; the disparity `[d, h, w]` of others, None where it was not asked for."""

    logits: Logits
    disparity: Tensor | None


class Decoder(nn.Module):
    """From an encoder's features back to the image's size, in the form of a U-Net.

    A stage convolves, doubles the size by repeating pixels (the first need not), takes the encoder's features of its
    size beside its own, and convolves again; a last convolution answers.

    Args:
        channels: of the encoder's features at each n-th of the image's size.
        outputs: channels of the answer. width: factor on `CHANNELS`. norm: whether batch norm follows each convolution but the last.

    Source: Godard et al., ICCV 2019, supplement, table 5.
    Differs: borders are repeated and not reflected, which needs two pixels where a small image has one; one answer, at full size,
        where they have four; batch norm where asked for.
    """

    def __init__(self, channels: Mapping[int, int], *, outputs: int, width: float, norm: bool = False):
        super().__init__()
        self.deepest = str(max(channels))
        before = channels[max(channels)]
        self.first, self.second = nn.ModuleDict(), nn.ModuleDict()
        for part, most in CHANNELS.items():
            if part > max(channels):
                continue
            own, skipped = max(4, round(width * most)), channels.get(part, 0) if part < max(channels) else 0
            self.first[str(part)] = _block(before, own, norm=norm)
            self.second[str(part)] = _block(own + skipped, own, norm=norm)
            before = own
        self.head = _convolution(before, outputs)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """`[b, outputs, h, w]`."""
        x = features[self.deepest]
        for part, first in self.first.items():
            x = first(x)
            if part != self.deepest:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                if part in features:
                    x = torch.cat([x, features[part]], 1)
            x = self.second[part](x)
        answer: Tensor = self.head(x)
        return answer


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def _block(inputs: int, outputs: int, *, norm: bool) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs), *([nn.BatchNorm2d(outputs)] if norm else []), nn.ELU(inplace=True)
    )


class TwoDecoders(nn.Module):
    """An encoder, a segmentation decoder and a depth decoder; run as a module it gives logits alone.

    Args:
        encoder: images to features by the n-th of the image's size that they have: `{"2": …, "4": …}`.
        classes: channels of the logits. width: factor on the channels of the decoders.
    """

    def __init__(self, encoder: nn.Module, classes: int, width: float):
        super().__init__()
        self.encoder = encoder
        with frozen(encoder), torch.no_grad():
            channels = {int(part): x.shape[1] for part, x in encoder(torch.zeros(1, 3, 64, 64)).items()}
        self.segmentation = Decoder(channels, outputs=classes, width=width)
        self.depth = Decoder(channels, outputs=1, width=width, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the size of `x`."""
        logits: Tensor = self.segmentation(self.encoder(x))
        return logits

    def disparity(self, features: Mapping[str, Tensor]) -> Tensor:
        """`[d, h, w]`, above 0, of mean `MEAN_DISPARITY`; see `geometry.disparity_to_depth`."""
        answer = self.depth(features).squeeze(1)
        wide = answer.to(torch.promote_types(answer.dtype, torch.float32))
        shares: Tensor = wide.flatten(1).softmax(1).view_as(wide)
        return MEAN_DISPARITY * wide[0].numel() * shares


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """The same values; on the way back the gradient is multiplied by the factor.

    Source: Klingner et al. 2020 (lambda and 1 - lambda; from their later code, SGDepth, `ScaledSplit`).
    """
    return _Scaled.apply(x, factor)


class _Pyramid(nn.Module):
    """The maps of an encoder of timm by the n-th of the image's size that they have."""

    def __init__(self, stages: nn.Module, parts: Sequence[int]):
        super().__init__()
        self.stages, self.parts = stages, tuple(map(str, parts))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.parts, self.stages(x), strict=True))


def _encoder(name: str, width: float, pretrained: bool) -> tuple[nn.Module, Input]:
    """The encoder, its tensors named as in the network it is from (timm's begin with `stages`), and what it expects."""
    resnets = [known for known in models.list_models(module=models) if known.startswith("resnet")]
    if name == "erfnet" and not pretrained:
        return IntermediateLayerGetter(ERFNet(width=width), {"down1": "2", "stage1": "4", "stage2": "8"}), Input(
            divisor=8
        )
    weights = online(f"the weights of '{name}'", TORCH if name in resnets else HUB, "encoder_weights=None")
    with weights if pretrained else contextlib.nullcontext():
        if name in resnets:
            layers = {"relu": "2", "layer1": "4", "layer2": "8", "layer3": "16", "layer4": "32"}
            whole = models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
            return IntermediateLayerGetter(whole, layers), Input(mean=IMAGENET_MEAN, std=IMAGENET_STD, divisor=32)
        return _of_timm(name, pretrained, resnets if pretrained else [*resnets, "erfnet"])


def _of_timm(name: str, pretrained: bool, others: Sequence[str]) -> tuple[nn.Module, Input]:
    what = f"an encoder of multitask{' with pretrained weights' * pretrained}"
    try:
        import timm
    except ImportError as error:
        raise SpecError(
            f"expected {what}, got '{name}'; try {', '.join(others)}, or, with pip install timm, one of timm's"
        ) from error
    config = None
    with contextlib.suppress(RuntimeError):  # as a name with a tag that timm does not know raises
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None or (pretrained and not config.has_weights):
        raise SpecError(
            f"expected {what}, got '{name}'; try {', '.join(others)}, or one of timm's, such as tf_efficientnet_lite0"
        )
    try:
        stages = timm.create_model(name, pretrained=pretrained, features_only=True)
        with frozen(stages), torch.no_grad():
            sizes = [tuple(x.shape[-2:]) for x in stages(torch.zeros(1, 3, 64, 64))]
    except (RuntimeError, AssertionError, ValueError) as error:
        if isinstance(error, OSError):
            raise  # what was to be downloaded is missing, which is a ValueError too
        raise SpecError(
            f"expected an encoder for images of any size, got '{name}', of which timm says: {_first_line(error)}; try resnet18"
        ) from error
    parts = [64 // size[0] for size in sizes]
    if (
        [(64 // part, 64 // part) for part in parts] != sizes
        or not set(parts) <= HALVED
        or len(set(parts)) < len(parts)
    ):
        shown = ", ".join("x".join(map(str, size)) for size in sizes)
        raise SpecError(
            f"expected an encoder whose maps halve the image's size up to 5 times, got '{name}', which makes of 64x64: {shown}; try resnet18"
        )
    return _Pyramid(stages, parts), Input(mean=config.mean, std=config.std, divisor=max(parts))


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


@network("multitask")
class MultiTask(Adapted):
    """Segmentation with depth as a second task: as a network it labels images, and no depth is computed.

    The depth decoder is trained by `robustseg train --video`; any other training leaves it as it is.

    Args:
        encoder: `resnet18`, `resnet34`, `resnet50`, … of torchvision, `erfnet`, or a network of timm, where that package is
            installed; with images normalised as it wants them, torchvision's as ImageNet.
        classes: a label space, the name of a known one, class names or their number.
        width: factor on the channels of the decoders and of ERFNet's encoder.
        encoder_weights: `imagenet` starts the encoder from pretrained weights, which are downloaded (of timm's those of that name);
            None starts from nothing.

    Raises:
        SpecError: the encoder is unknown, or has no such weights, or the width is not positive. RobustsegError: there was no download.

    Source: Klingner, Bär, Fingscheidt, CVPR Workshops 2020.
    Differs: the paper's text is not to be had; encoder and decoders are those of the authors' later code (SGDepth), which also
        shares the first stage of the decoders. The disparity is shares of a fixed whole, so that its scale is not learned, as
        in Wang et al., CVPR 2018 (inverse depth over its mean); there it is a sigmoid. Depth has batch norm in its decoder.
    """

    def __init__(
        self,
        *,
        encoder: str = "resnet18",
        classes: Classes = "camvid",
        width: float = 1.0,
        encoder_weights: str | None = None,
    ):
        require_width(width)
        if encoder_weights not in (None, "imagenet"):
            raise SpecError(f"expected encoder_weights 'imagenet' or None, got '{encoder_weights}'; try 'imagenet'")
        space = label_space(classes)
        made, expects = _encoder(encoder, width, encoder_weights is not None)
        spec = f"multitask(encoder={encoder!r}, classes={classes_text(space)}, width={width})"
        super().__init__(TwoDecoders(made, len(space), width), space, expects, spec)
        self.module: TwoDecoders
        self.module.depth.requires_grad_(False)  # until a training asks for depth

    def both(self, images: Images, frames: Images, weight: float) -> Both:
        """Logits of some images and the disparity of others of the same size, from one pass of the encoder.

        Batch norm sees images and frames together.

        Args:
            images: `[b, 3, h, w]`. frames: `[d, 3, h, w]`; height and width are multiples of what the encoder halves to.
            weight: lambda: into the encoder flows `weight` times the gradient from the depth decoder and `1 - weight`
                times that from the segmentation decoder. With 0 the depth decoder does not run: frames count in
                batch norm alone.
        """
        features = self.module.encoder(self.prepare(torch.cat([images, frames])))
        mine = {part: scaled_gradient(x[: len(images)], 1 - weight) for part, x in features.items()}
        logits = self.module.segmentation(mine)[..., : images.shape[-2], : images.shape[-1]]
        if not weight:
            return Both(logits, None)
        theirs = {part: scaled_gradient(x[len(images) :], weight) for part, x in features.items()}
        return Both(logits, self.module.disparity(theirs))

    def disparity(self, frames: Images) -> Tensor:
        """The disparity `[d, h, w]` of frames padded as the encoder needs it."""
        return self.module.disparity(self.module.encoder(self.prepare(frames)))

    def depth(self, images: Images) -> Depth:
        """Depth along the optical axis `[b, h, w]`, up to the factor that video leaves open: its inverse is 1 on average."""
        return disparity_to_depth(self.disparity(images))[:, : images.shape[-2], : images.shape[-1]]
