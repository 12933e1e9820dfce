"""Any images with index masks of the same names, and a list of their classes."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.datasets.files import paired, read_labels, train_ids_of
from robustseg.datasets.paired import Paired

TREE = """IMAGES/  a.jpg  b.png …     (PNG, JPEG, …)
LABELS/  a.png  b.png …     (8-bit PNG, one class index a pixel: 0 is the first class, 255 void)"""


@dataset("folder")
class Folder(Paired):
    """Images and 8-bit index masks in two folders, paired by name: `folder(images='…', labels='…', classes='camvid')`.

    Images may differ in size.

    Args:
        images: the folder of images.
        labels: the folder of masks, `NAME.png` for the image `NAME.jpg`.
        classes: the name of a label space, class names, a file of them (`.txt` or `.json`), or their number.
        values: the value that each class has in the masks, such as `(0, 255)`; None: 0, 1, 2, …
        void: the values that count for nothing; None: 255, unless it is the value of a class. With one or two classes, a
            mask of 255 without any 1 may mean either, and is refused unless `values` or `void` says what it means.

    Raises:
        DatasetNotFound: a folder or a mask is missing, or there are no images. SpecError: `classes`, `values` or `void`
            make no sense.
    """

    def __init__(
        self,
        *,
        images: str,
        labels: str,
        classes: Classes,
        values: Sequence[int] | None = None,
        void: int | Sequence[int] | None = None,
    ):
        self.label_space = label_space(classes)
        listed = isinstance(classes, str) and Path(classes).suffix in (".txt", ".json")
        self.files = (Path(classes),) if isinstance(classes, str) and listed else ()
        given = {} if values is None else {"values": _levels("values", values)}
        given |= {} if void is None else {"void": _levels("void", (void,) if isinstance(void, int) else void)}
        self._values = given.get("values", tuple(range(len(self.label_space))))
        if len(set(self._values)) != len(self.label_space):
            raise SpecError(
                f"expected one value for each of {len(self.label_space)} classes, got {self._values}; "
                "try values=(0, 255) for two classes"
            )
        self.void = given.get("void", (IGNORE,) if IGNORE not in self._values else ())
        both = set(self._values) & set(self.void) if values is not None else ()
        if both:
            raise SpecError(f"expected each value to be a class or void, got {min(both)} as both; try another void")
        if set(self._values) <= set(self.void):
            raise SpecError(f"expected a class that is not void, got void={self.void}; try another void")
        self._open_question = not given and len(self.label_space) <= 2
        written = repr(classes) if listed else classes_text(self.label_space)
        kept = "".join(f", {name}={levels!r}" for name, levels in given.items())
        self.spec = f"folder(images={images!r}, labels={labels!r}, classes={written}{kept})"
        pairs = paired(Path(images), Path(labels), what="images with masks", tree=TREE)
        self.ids = tuple(pairs)
        self.paths = [pairs[i] for i in self.ids]

    def read_mask(self, path: Path, size: Sequence[int]) -> Tensor:
        """Labels of a mask, unless nobody said whether its 255 is a class or void."""
        labels = read_labels(path, train_ids_of(self._values, void=self.void), size)
        if self._open_question and (labels == IGNORE).any() and not (labels == 1).any():
            raise RobustsegError(
                f"expected to know what 255 means in '{path}', got no 1 beside it and {len(self.label_space)} classes; "
                "try values=(0, 255) where 255 is the second class, or void=255 where it counts for nothing"
            )
        return labels


def _levels(name: str, given: Sequence[int]) -> tuple[int, ...]:
    """Values of a mask, as they were given."""
    if not all(isinstance(value, int) and 0 <= value <= 255 for value in given):
        raise SpecError(f"expected {name} as values 0 to 255, got {given!r}; try {name}=(255,)")
    return tuple(given)
