"""The label spaces that many data sets and networks share, and how a spec names one. No torch.

The palettes are those that the authors of the data publish.
"""

import colorsys
import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from robustseg.core.errors import RobustsegError, SpecError, readable
from robustseg.core.files import text_of
from robustseg.core.labels import IGNORE, LabelSpace

CAMVID = LabelSpace(
    ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
"""The 11 classes of CamVid as SegNet grouped them (Badrinarayanan et al. 2017); void is 255."""

CITYSCAPES = LabelSpace(
    (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    (
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
)
"""The 19 train ids of Cityscapes (Cordts et al. 2016)."""

# Cityscapes labelId -> train id; every other labelId is void.
CITYSCAPES_TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9,
    23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip

VOC = LabelSpace(
    (
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
    (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 128),
        (128, 128, 128),
        (64, 0, 0),
        (192, 0, 0),
        (64, 128, 0),
        (192, 128, 0),
        (64, 0, 128),
        (192, 0, 128),
        (64, 128, 128),
        (192, 128, 128),
        (0, 64, 0),
        (128, 64, 0),
        (0, 192, 0),
        (128, 192, 0),
        (0, 64, 128),
    ),
)
"""Background and the 20 classes of Pascal VOC (Everingham et al. 2015); void is 255."""

KNOWN = {"camvid": CAMVID, "cityscapes": CITYSCAPES, "streets": CAMVID, "voc": VOC}
"""The label spaces that a spec may name; `streets` renders CamVid's classes."""

Classes = LabelSpace | str | int | Sequence[str]
"""What `label_space` reads: a label space, the name of a known one, a file of class names, class names or their number."""


def label_space(classes: Classes) -> LabelSpace:
    """The label space that `classes` means.

    Args:
        classes: a label space (returned as it is), the name of a known one (`'camvid'`), the path of a file that lists
            class names (`.txt`: one a line, blank lines do not count; `.json`: a list of names, or an object with `names` and perhaps
            `palette`), class names in train-id order, or their number. Names of a known one get its palette, others
            evenly spread colours.

    Raises:
        SpecError: the name is unknown, the file holds no class list, or `classes` is none of these.
    """
    if isinstance(classes, LabelSpace):
        return classes
    if isinstance(classes, str) and classes.endswith((".txt", ".json")):
        classes = _listed(Path(classes))
        if isinstance(classes, LabelSpace):
            return classes
    if isinstance(classes, str):
        if classes not in KNOWN:
            near = difflib.get_close_matches(classes.lower(), KNOWN, n=2, cutoff=0.5) or KNOWN
            raise SpecError(
                f"expected a known label space, got '{classes}'; try {', '.join(near)}, or a list of class names"
            )
        return KNOWN[classes]
    if isinstance(classes, int) and not isinstance(classes, bool):
        if not 1 <= classes <= IGNORE:
            raise SpecError(f"expected 1 to {IGNORE} classes, got {classes}; try classes='camvid' or ('road', 'car')")
        classes = tuple(f"class {i}" for i in range(classes))
    if not isinstance(classes, Sequence) or not all(isinstance(name, str) for name in classes):
        raise SpecError(
            f"expected class names or their number, got {readable(repr(classes), 80)}; try classes='camvid' or ('road', 'car')"
        )
    known = next((space for space in KNOWN.values() if space.names == tuple(classes)), None)
    return known or LabelSpace(tuple(classes), tuple(_colour(i) for i in range(len(classes))))


def classes_text(space: LabelSpace) -> str:
    """What a spec says for a label space, so that `label_space` gives its classes back: `'camvid'` or the names."""
    return next((repr(name) for name, known in KNOWN.items() if known.names == space.names), repr(space.names))


def _listed(path: Path) -> LabelSpace | tuple[str, ...]:
    """What a file of class names says."""
    try:
        text = text_of(path)
        lines = [line for line in text.splitlines() if line.strip()]
        listed = json.loads(text) if path.suffix == ".json" else lines
        palette = listed.get("palette") if isinstance(listed, dict) else None
        names = listed["names"] if isinstance(listed, dict) else listed
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of names")
        names = tuple(name.strip() for name in names)
        return _with_palette(names, palette) if palette else names
    except FileNotFoundError as error:
        raise SpecError(f"expected a class list at '{path}', got no such file; try classes=('road', 'car')") from error
    except RobustsegError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SpecError(
            f"expected one class name a line, or JSON with a list of names, in '{path}', got '{error}'; "
            "try a text file with one name a line"
        ) from error


def _with_palette(names: tuple[str, ...], palette: object) -> LabelSpace:
    try:
        return LabelSpace.from_json({"names": names, "palette": palette})
    except RobustsegError as error:  # which names no file
        raise ValueError(str(error).partition("; try")[0]) from error


def _colour(index: int) -> tuple[int, int, int]:
    # Steps of the golden ratio around the colour circle keep neighbours apart, however many classes there are.
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (0.95, 0.7)[index % 2])
    return round(red * 255), round(green * 255), round(blue * 255)
