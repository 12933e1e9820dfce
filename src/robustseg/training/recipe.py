"""How a network is trained with labels."""

import math
from dataclasses import dataclass

from robustseg.core.errors import RobustsegError


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults suit a small network from scratch.

    Args:
        epochs: passes over the data. batch_size: images a step, over all processes.
        crop: (height, width) of what the network sees. scale, flip, colour: see `robustseg.datasets.augment`.
        learning_rate: at the start, falling as (1 - step / steps)^0.9 (poly). weight_decay: of AdamW.
        balance: weight each class by 1 / log(1.1 + its share of pixels) in the loss (Paszke et al. 2016, with 1.1).
        ema: decay a step of the averaged weights, which are what is kept; 0 keeps the weights themselves.
        check_every: epochs between two measurements on the held-out data.
        seed: of order, augmentation and dropout.
    """

    epochs: int = 60
    batch_size: int = 12
    crop: tuple[int, int] = (180, 240)
    scale: tuple[float, float] = (0.75, 1.5)
    flip: bool = True
    colour: float = 0.3
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    balance: bool = True
    ema: float = 0.998
    check_every: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.check_every < 1:
            raise RobustsegError(
                f"expected at least one epoch, one image a batch and one epoch between checks, got {self.epochs}, "
                f"{self.batch_size} and {self.check_every}; try the defaults"
            )
        if min(self.crop) < 1 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise RobustsegError(
                f"expected a crop of at least 1x1 and 0 < lowest <= highest scale, got {self.crop[0]}x{self.crop[1]} and "
                f"{self.scale[0]} to {self.scale[1]}; try crop=(180, 240) and scale=(0.75, 1.5)"
            )
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise RobustsegError(
                f"expected a learning rate > 0 and a weight decay >= 0, got {self.learning_rate} and "
                f"{self.weight_decay}; try 1e-3 and 1e-4"
            )
        if not (0 <= self.ema < 1 and 0 <= self.colour <= 1):
            raise RobustsegError(
                f"expected 0 <= ema < 1 and 0 <= colour <= 1, got {self.ema} and {self.colour}; try 0.998 and 0.3"
            )
