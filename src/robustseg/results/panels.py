"""Panels: what one image looked like before and after a perturbation, kept as a file and drawn for a report. No torch.

A panel is one `.npz` of plain uint8 arrays beside the records (`DIR/panels/NAME.npz`); colours are put on only when it
is drawn, so that nothing is lost on the way and the report decides how large its pictures are.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.files import make_folder, write_whole
from robustseg.core.labels import IGNORE, LabelSpace
from robustseg.core.levels import to_8bit
from robustseg.core.schema import read_as

VOID_COLOUR = (0, 0, 0)
RIGHT_COLOUR = (225, 228, 232)
LOST_COLOUR = (196, 49, 42)
WRONG_BEFORE_COLOUR = (150, 158, 168)


@dataclass(frozen=True)
class Panel:
    """One image of one record.

    Args:
        id: of the image. record: the key of the record that the panel belongs to (`Record.key`).
        label_space: names and colours of the classes.
        image, perturbed: uint8 `[h, w, 3]`, RGB.
        labels, before, after: uint8 `[h, w]`: labels (255 void), the prediction on the clean image, on the perturbed.
    """

    id: str
    record: str
    label_space: LabelSpace
    image: np.ndarray
    perturbed: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def __post_init__(self) -> None:
        size = self.labels.shape
        shapes = {name: getattr(self, name).shape for name in _ARRAYS}
        wanted = {name: (*size, 3) if name in ("image", "perturbed") else size for name in _ARRAYS}
        if shapes != wanted or any(getattr(self, name).dtype != np.uint8 for name in _ARRAYS):
            got = ", ".join(f"{name} {getattr(self, name).dtype} {shapes[name]}" for name in _ARRAYS)
            raise ShapeError(f"expected uint8 images [h, w, 3] and maps [h, w] of one size, got {got}")


_ARRAYS = ("image", "perturbed", "labels", "before", "after")


class _About(TypedDict):
    id: str
    record: str
    label_space: LabelSpace


def save_panel(folder: Path, name: str, panel: Panel) -> Path:
    """Write `folder/NAME.npz`, whole or not at all; the folder is made.

    Raises:
        RobustsegError: it cannot be written.
    """
    path = Path(folder) / f"{name}.npz"
    about = {"id": panel.id, "record": panel.record, "label_space": asdict(panel.label_space)}
    buffer = io.BytesIO()
    arrays = {key: getattr(panel, key) for key in _ARRAYS}
    np.savez_compressed(buffer, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    make_folder(path.parent)
    write_whole(path, buffer.getvalue())
    return path


class Caption(NamedTuple):
    """Which image of which record (`Record.key`) a panel shows."""

    id: str
    record: str


def read_caption(path: Path) -> Caption:
    """What a panel shows, without loading its pictures.

    Raises:
        RobustsegError: the file is not a panel.
    """
    with _opened(path) as stored:
        about = read_as(_About, json.loads(stored["about"].tobytes()))
        return Caption(about["id"], about["record"])


def read_panel(path: Path) -> Panel:
    """Read what `save_panel` wrote.

    Raises:
        RobustsegError: the file is not a panel.
    """
    with _opened(path) as stored:
        about = read_as(_About, json.loads(stored["about"].tobytes()))
        arrays = {key: stored[key] for key in _ARRAYS}
        return Panel(about["id"], about["record"], about["label_space"], **arrays)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            yield stored
    except Exception as error:  # there is no telling what reading a torn or foreign file raises
        raise RobustsegError(f"expected a panel in {path}, got something else; try removing the file") from error


class Tile(NamedTuple):
    """One picture of a panel."""

    title: str
    picture: Image.Image
    photo: bool


def tiles(panel: Panel, *, longest: int = 480) -> list[Tile]:
    """The seven pictures of a panel, in reading order; large ones are thinned by a whole step, not smoothed.

    Args:
        panel: what to draw.
        longest: of the longer side, pixels.
    """
    step = -(-max(panel.labels.shape) // longest)
    image, perturbed, labels, before, after = (getattr(panel, name)[::step, ::step] for name in _ARRAYS)
    change, factor = magnified(image, perturbed)
    palette = panel.label_space.palette
    return [
        Tile("image", Image.fromarray(image), True),
        Tile("perturbed", Image.fromarray(perturbed), True),
        Tile(f"difference x {factor}", Image.fromarray(change), True),
        Tile("labels", map_picture(labels, palette), False),
        Tile("prediction before", map_picture(before, palette), False),
        Tile("prediction after", map_picture(after, palette), False),
        Tile("errors: red new, grey old", _errors(labels, before, after), False),
    ]


def magnified(image: np.ndarray, perturbed: np.ndarray) -> tuple[np.ndarray, int]:
    """The difference around mid-grey, magnified to use the range, and the whole factor; uint8 `[h, w, 3]`."""
    change = perturbed.astype(np.int32) - image.astype(np.int32)
    # the 99.5th percentile, so that a few outliers (salt and pepper) do not hide the rest
    size = max(1.0, float(np.percentile(np.abs(change), 99.5)))
    factor = max(1, int(110 // size))
    return np.clip(128 + factor * change, 0, 255).astype(np.uint8), factor


def sheet(panel: Panel, *, longest: int = 480) -> Image.Image:
    """All tiles of a panel in one picture, four a row, each under its title."""
    return page_of(tiles(panel, longest=longest))


def page_of(drawn: Sequence[Tile], *, columns: int = 4, gap: int = 6) -> Image.Image:
    """Pictures of one size in one, row by row, each under its title."""
    font = ImageFont.load_default(13)
    width, height, head = drawn[0].picture.width, drawn[0].picture.height, 20
    columns = min(columns, len(drawn))
    rows = -(-len(drawn) // columns)
    page = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + head + gap) - gap), "white")
    pen = ImageDraw.Draw(page)
    for i, tile in enumerate(drawn):
        x, y = (i % columns) * (width + gap), (i // columns) * (height + head + gap)
        pen.text((x, y + 2), tile.title, fill=(60, 64, 70), font=font)
        page.paste(tile.picture.convert("RGB"), (x, y + head))
    return page


def map_picture(labels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> Image.Image:
    """A label map uint8 `[h, w]` in the colours of its classes, void black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:] = VOID_COLOUR
    colours[: len(palette)] = palette
    return _indexed(labels, colours)


def _errors(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> Image.Image:
    kinds = np.zeros(labels.shape, np.uint8)
    kinds[(after != labels) & (before == labels)] = 1
    kinds[(after != labels) & (before != labels)] = 2
    kinds[labels == IGNORE] = 3
    colours = np.zeros((256, 3), np.uint8)
    colours[:4] = (RIGHT_COLOUR, LOST_COLOUR, WRONG_BEFORE_COLOUR, VOID_COLOUR)
    return _indexed(kinds, colours)


def _indexed(values: np.ndarray, colours: np.ndarray) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(values))
    picture.putpalette(colours.ravel().tolist())
    return picture


def quantised(image: np.ndarray) -> np.ndarray:
    """Float images in [0, 1], `[3, h, w]`, as uint8 `[h, w, 3]` for a panel."""
    return to_8bit(np.moveaxis(image, 0, -1))
