"""ENet: bottlenecks at an eighth of the size and a light decoder that unpools where the encoder pooled (2016).

Layers, in order (Table 1 of the paper): initial, down1, stage1 (4 blocks), down2, stage2 (8 blocks: regular, dilated,
asymmetric), stage3 (the same 8 again), up4, stage4 (2 blocks), up5, stage5 (1 block), classifier. Written from the
paper; checkpoints in the layout of the well-known PyTorch reimplementation are read by renaming their tensors.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.registry import network
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.networks.checkpoints import load_state, unwrapped
from robustseg.networks.layered import LayeredNetwork


class Initial(nn.Module):
    """Half the size: a strided 3x3 convolution beside a max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`[b, 3, h, w] -> [b, 16, h / 2, w / 2]`."""
        pooled = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.activation(self.norm(torch.cat([self.convolution(x), pooled], 1)))


class Bottleneck(nn.Module):
    """Project down by 4, convolve, expand, add: 3x3 (dilated or not), or 5x1 then 1x5 where `asymmetric`."""

    def __init__(
        self, channels: int, dropout: float, *, dilation: int = 1, asymmetric: bool = False, decoder: bool = False
    ):
        super().__init__()
        inner = channels // 4
        if asymmetric:
            convolutions = [
                nn.Conv2d(inner, inner, (5, 1), padding=(2, 0), bias=False),
                nn.Conv2d(inner, inner, (1, 5), padding=(0, 2), bias=False),
            ]
        else:
            convolutions = [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False)]
        self.branch = nn.Sequential(
            _unit(nn.Conv2d(channels, inner, 1, bias=False), decoder=decoder),
            nn.Sequential(*(layer for c in convolutions for layer in _unit(c, decoder=decoder))),
            _unit(nn.Conv2d(inner, channels, 1, bias=False), decoder=decoder),
            nn.Dropout2d(dropout),
        )
        self.activation = _activation(decoder)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, channels, h, w]` to the same shape."""
        return self.activation(x + self.branch(x))


class Downsampler(nn.Module):
    """Half the size: a bottleneck with a 2x2 projection beside a max pool whose positions are kept."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        inner = inputs // 4
        self.branch = nn.Sequential(
            _unit(nn.Conv2d(inputs, inner, 2, stride=2, bias=False)),
            _unit(nn.Conv2d(inner, inner, 3, padding=1, bias=False)),
            _unit(nn.Conv2d(inner, outputs, 1, bias=False)),
            nn.Dropout2d(dropout),
        )
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[b, inputs, h, w] -> [b, outputs, h / 2, w / 2]` and the pooling positions, int64 `[b, inputs, …]`."""
        pooled, positions = F.max_pool2d(x, 2, return_indices=True)
        y = self.branch(x)
        missing = y.shape[1] - pooled.shape[1]
        return self.activation(F.pad(pooled, (0, 0, 0, 0, 0, missing)) + y), positions


class Upsampler(nn.Module):
    """Twice the size: a bottleneck with a transposed convolution beside a max unpooling."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        inner = inputs // 4
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.branch = nn.Sequential(
            _unit(nn.Conv2d(inputs, inner, 1, bias=False), decoder=True),
            _unit(nn.ConvTranspose2d(inner, inner, 2, stride=2, bias=False), decoder=True),
            nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """`[b, inputs, h, w] -> [b, outputs, 2 h, 2 w]`; `positions` are those of the mirrored downsampler."""
        return (F.max_unpool2d(self.shortcut(x), positions, (2, 2)) + self.branch(x)).relu()


def _unit(convolution: nn.Module, *, decoder: bool = False) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(int(convolution.out_channels)), _activation(decoder))  # type: ignore[arg-type]


def _activation(decoder: bool) -> nn.Module:
    return nn.ReLU() if decoder else nn.PReLU()


@network("enet")
class ENet(LayeredNetwork):
    """ENet on images in [0, 1], any input size; 0.36 million parameters.

    Args:
        classes: a label space, the name of a known one, class names or their number.
        others: outputs after those of the classes, for void or anything else; a pixel that they win is counted as
            "void or another class".
        weights: a plain state dict (`.pth` read without running code, or `.safetensors`), in the layout of this
            class or of the well-known PyTorch reimplementation.

    Raises:
        RobustsegError: the weights cannot be read, or their tensors do not fit.

    Source: Paszke, Chaurasia, Kim, Culurciello: ENet, arXiv:1606.02147, 2016, Table 1 and Fig. 2.
    Differs: sizes that are no multiple of 8 are padded by repeating the border, and the logits are cropped; ReLU
        instead of PReLU in the decoder, one slope for all channels of a PReLU, and an activation after the expansion,
        as in the reimplementation whose checkpoints are read.
    """

    def __init__(self, *, classes: Classes = "cityscapes", others: int = 0, weights: str | Path | None = None):
        if not 0 <= others <= IGNORE:
            raise SpecError(f"expected 0 to {IGNORE} other outputs, got {others}; try others=1 for void")
        space = label_space(classes)
        super().__init__(space, f"enet(classes={classes_text(space)}, others={others})")
        self.initial = Initial()
        self.down1 = Downsampler(16, 64, 0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, 0.01) for _ in range(4)))
        self.down2 = Downsampler(64, 128, 0.1)
        self.stage2 = _stage()
        self.stage3 = _stage()
        self.up4 = Upsampler(128, 64, 0.1)
        self.stage4 = nn.Sequential(*(Bottleneck(64, 0.1, decoder=True) for _ in range(2)))
        self.up5 = Upsampler(64, 16, 0.1)
        self.stage5 = nn.Sequential(Bottleneck(16, 0.1, decoder=True))
        self.classifier = nn.ConvTranspose2d(
            16, len(space) + others, 3, stride=2, padding=1, output_padding=1, bias=False
        )
        if weights is not None:
            load_state(self, weights, names=own_names)

    def _through(self, block: nn.Module, x: Tensor, memory: list[Tensor]) -> Tensor:
        if isinstance(block, Downsampler):
            x, positions = block(x)
            memory.append(positions)
            return x
        return block(x, memory.pop()) if isinstance(block, Upsampler) else block(x)


def _stage() -> nn.Sequential:
    blocks = []
    for dilations in ((2, 4), (8, 16)):
        blocks += [Bottleneck(128, 0.1), Bottleneck(128, 0.1, dilation=dilations[0])]
        blocks += [Bottleneck(128, 0.1, asymmetric=True), Bottleneck(128, 0.1, dilation=dilations[1])]
    return nn.Sequential(*blocks)


_RENAMED = (
    (r"^initial_block\.main_branch", "initial.convolution"),
    (r"^initial_block\.batch_norm", "initial.norm"),
    (r"^initial_block\.", "initial."),
    (r"^(up|down)sample(\d)_0", r"\1\2"),
    (r"^(up\d)\.main_conv1", r"\1.shortcut"),
    (r"^(up\d)\.ext_tconv1_bnorm", r"\1.branch.1.1"),
    (r"^(up\d)\.ext_tconv1", r"\1.branch.1.0"),
    (r"^(up\d)\.ext_conv2", r"\1.branch.2"),
    (r"\.ext_conv1\.", ".branch.0."),
    (r"\.ext_conv2\.", ".branch.1."),
    (r"\.ext_conv3\.", ".branch.2."),
    (r"\.out_activation\.", ".activation."),
    (r"^transposed_conv", "classifier"),
)


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the well-known PyTorch reimplementation under the names of `ENet`; other names stay."""
    return {_own_name(name): tensor for name, tensor in unwrapped(state).items()}


def _own_name(name: str) -> str:
    for pattern, ours in _RENAMED:
        name = re.sub(pattern, ours, name)
    # Blocks are counted from 1 where a down- or upsampler is number 0; stage 3 has none.
    block = re.match(r"(?:regular|dilated|asymmetric)(\d)_(\d)", name)
    if not block:
        return name
    stage, number = int(block[1]), int(block[2])
    return f"stage{stage}.{number - (stage != 3)}{name[block.end() :]}"
