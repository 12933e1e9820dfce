"""Any images with index masks of the same names, and a list of their classes."""

from collections.abc import Sequence
from pathlib import Path

from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.datasets.files import paired
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
        classes: of the indices 0, 1, …: the name of a label space, class names, a file of them (`.txt` or `.json`), or
            their number.
        void: the values that count for nothing.

    Raises:
        DatasetNotFound: a folder or a mask is missing, or there are no images. SpecError: `classes` or `void` make no
            sense.
    """

    def __init__(self, *, images: str, labels: str, classes: Classes, void: int | Sequence[int] = (IGNORE,)):
        self.label_space = label_space(classes)
        listed = isinstance(classes, str) and Path(classes).suffix in (".txt", ".json")
        self.files = (Path(classes),) if isinstance(classes, str) and listed else ()
        self.void = values = (void,) if isinstance(void, int) else tuple(void)
        if not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
            raise SpecError(f"expected void as values 0 to 255, got {void!r}; try void=(255,)")
        written = repr(classes) if listed else classes_text(self.label_space)
        kept = f", void={values!r}" if values != (IGNORE,) else ""
        self.spec = f"folder(images={images!r}, labels={labels!r}, classes={written}{kept})"
        pairs = paired(Path(images), Path(labels), what="images with masks", tree=TREE)
        self.ids = tuple(pairs)
        self.paths = [pairs[i] for i in self.ids]
