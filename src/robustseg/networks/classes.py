"""Label spaces from what a spec may say: the name of a known one, a list of class names, or their number."""

import colorsys
import difflib
from collections.abc import Sequence

from robustseg.records import LabelSpace, SpecError
from robustseg.spaces import CAMVID, CITYSCAPES

KNOWN = {"camvid": CAMVID, "cityscapes": CITYSCAPES, "streets": CAMVID}
"""The label spaces that a spec may name; `streets` renders CamVid's classes."""


Classes = LabelSpace | str | int | Sequence[str]
"""What `label_space` reads: a label space, the name of a known one, class names, or their number."""


def label_space(classes: Classes) -> LabelSpace:
    """The label space that `classes` means.

    Args:
        classes: a label space (returned as it is), the name of a known one (`'camvid'`), class names in train-id
            order, or their number. Names of a known one get its palette, others
            evenly spread colours.

    Raises:
        SpecError: the name is unknown, or `classes` is none of these.
    """
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
        classes = tuple(f"class {i}" for i in range(classes))
    if not isinstance(classes, Sequence) or not all(isinstance(name, str) for name in classes):
        raise SpecError(
            f"expected class names or their number, got {classes!r}; try classes='camvid' or ('road', 'car')"
        )
    known = next((space for space in KNOWN.values() if space.names == tuple(classes)), None)
    return known or LabelSpace(tuple(classes), tuple(_colour(i) for i in range(len(classes))))


def classes_text(space: LabelSpace) -> str:
    """What a spec says for a label space, so that `label_space` gives its classes back: `'camvid'` or the names."""
    return next((repr(name) for name, known in KNOWN.items() if known.names == space.names), repr(space.names))


def _colour(index: int) -> tuple[int, int, int]:
    # Steps of the golden ratio around the colour circle keep neighbours apart, however many classes there are.
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (0.95, 0.7)[index % 2])
    return round(red * 255), round(green * 255), round(blue * 255)
