"""ERFNet: factorised residual blocks between three downsamplers and two upsamplers (Romera et al. 2018).

Layers, in order (Table I of the paper): down1, down2, five blocks, down3, eight dilated blocks, up1, two blocks, up2,
two blocks, classifier. Written from the paper.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustseg.core.registry import network
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.networks.layered import LayeredNetwork, require_width

DROPOUT = (0.03, 0.3)
"""Of the paper: in the blocks after down2 and after down3."""


class Downsampler(nn.Module):
    """Half the size: a strided 3x3 convolution beside a 2x2 max pool, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, inputs, h, w] -> [b, outputs, h / 2, w / 2]`."""
        return self.norm(torch.cat([self.convolution(x), F.max_pool2d(x, 2)], 1)).relu()


class Upsampler(nn.Module):
    """Twice the size: a transposed 3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, inputs, h, w] -> [b, outputs, 2 h, 2 w]`."""
        return self.norm(self.convolution(x)).relu()


class NonBottleneck1D(nn.Module):
    """A residual block of two 3x3 convolutions, each split into 3x1 and 1x3; the second pair is dilated."""

    def __init__(self, channels: int, dropout: float, dilation: int = 1):
        super().__init__()
        d = dilation
        self.conv1_vertical = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1_horizontal = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.norm1 = nn.BatchNorm2d(channels, eps=1e-3)
        self.conv2_vertical = nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1))
        self.conv2_horizontal = nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d))
        self.norm2 = nn.BatchNorm2d(channels, eps=1e-3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, channels, h, w]` to the same shape."""
        y = self.norm1(self.conv1_horizontal(self.conv1_vertical(x).relu())).relu()
        y = self.norm2(self.conv2_horizontal(self.conv2_vertical(y).relu()))
        return (x + self.dropout(y)).relu()


@network("erfnet")
class ERFNet(LayeredNetwork):
    """ERFNet on images in [0, 1], any input size.

    Args:
        classes: a label space, the name of a known one, class names or their number.
        width: factor on every channel count; 1 is the paper, 2.1 million parameters.
        dropout: of the blocks after down2 and after down3.

    Source: Romera, Alvarez, Bergasa, Arroyo: ERFNet, IEEE T-ITS 19(1), 2018, Table I and Fig. 2.
    Differs: sizes that are no multiple of 8 are padded by repeating the border, and the logits are cropped.
    """

    def __init__(self, *, classes: Classes = "camvid", width: float = 1.0, dropout: tuple[float, float] = DROPOUT):
        require_width(width)
        space = label_space(classes)
        own_dropout = f", dropout={dropout}" if dropout != DROPOUT else ""
        super().__init__(space, f"erfnet(classes={classes_text(space)}, width={width}{own_dropout})")
        small, middle, large = (max(4, round(width * c)) for c in (16, 64, 128))
        self.down1 = Downsampler(3, small)
        self.down2 = Downsampler(small, middle)
        self.stage1 = nn.Sequential(*(NonBottleneck1D(middle, dropout[0]) for _ in range(5)))
        self.down3 = Downsampler(middle, large)
        self.stage2 = nn.Sequential(*(NonBottleneck1D(large, dropout[1], d) for d in (2, 4, 8, 16) * 2))
        self.up1 = Upsampler(large, middle)
        self.stage3 = nn.Sequential(*(NonBottleneck1D(middle, 0) for _ in range(2)))
        self.up2 = Upsampler(middle, small)
        self.stage4 = nn.Sequential(*(NonBottleneck1D(small, 0) for _ in range(2)))
        self.classifier = nn.ConvTranspose2d(small, len(self.label_space), 2, stride=2)
