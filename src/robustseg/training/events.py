"""What a training shows in TensorBoard: curves, and pictures of what the network sees."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from robustseg.core.errors import MissingExtra


class Events:
    """Event files in the folder of a run.

    Args:
        folder: of the run. done: steps already done; events of later steps, written before an interruption, are hidden.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, done: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard") from error
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def curves(self, figures: Mapping[str, float], step: int) -> None:
        """One point of each curve."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, pictures: Mapping[str, Tensor], step: int) -> None:
        """Images `[b, 1 or 3, h, w]` in [0, 1]; what is outside is clamped."""
        for name, images in pictures.items():
            self._writer.add_images(name, images.clamp(0, 1).cpu(), step)
        self._writer.flush()
