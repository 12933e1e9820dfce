"""What a training shows in TensorBoard: curves, and where depth is learned, what the network makes of the same few frames."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from robustseg.core.errors import MissingExtra
from robustseg.depth.photometric import ViewSynthesis


class Events:
    """Event files in the folder of a run.

    Args:
        folder: of the run. done: steps that it has done; what an earlier process wrote of later ones is hidden.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, done: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard") from error
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def curves(self, figures: Mapping[str, float | None], step: int) -> None:
        """One point of each curve that has a figure."""
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def pictures(self, frames: Tensor, disparity: Tensor, view: ViewSynthesis, step: int) -> None:
        """Frames `[b, 3, h, w]`, disparity `[b, h, w]` (near is bright), both neighbours warped onto them (black: out of view), masked pixels."""
        bright = disparity / disparity.amax((1, 2), keepdim=True)
        grey = {"disparity": bright, "masked": view.masked.float()}
        warps = {"warped previous": view.previous, "warped next": view.following}
        maps = {"frame": frames, **{name: warp.images * warp.valid.unsqueeze(1) for name, warp in warps.items()}}
        maps |= {name: values.unsqueeze(1) for name, values in grey.items()}
        for name, values in maps.items():
            self._writer.add_images(name, values.clamp(0, 1).cpu(), step)
        self._writer.flush()
