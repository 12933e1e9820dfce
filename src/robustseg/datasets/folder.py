"""Any images with index masks of the same names, and a list of their classes."""

from collections.abc import Sequence
from pathlib import Path

from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import sha256
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes, classes_text, label_space
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.files import paired, read_image, read_labels, train_ids_of

TREE = """IMAGES/  a.jpg  b.png …     (PNG, JPEG, …)
LABELS/  a.png  b.png …     (8-bit PNG, one class index a pixel: 0 is the first class, 255 void)"""


@dataset("folder")
class Folder(Dataset):
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
        values = (void,) if isinstance(void, int) else tuple(void)
        if not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
            raise SpecError(f"expected void as values 0 to 255, got {void!r}; try void=(255,)")
        self._train_ids = train_ids_of(len(self.label_space), void=values)
        written = repr(classes) if listed else classes_text(self.label_space)
        kept = f", void={values!r}" if values != (IGNORE,) else ""
        self.spec = f"folder(images={images!r}, labels={labels!r}, classes={written}{kept})"
        pairs = paired(Path(images), Path(labels), what="images with masks", tree=TREE)
        self.ids = tuple(pairs)
        self._paths = [pairs[i] for i in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self, index: int) -> str:
        """Digests of the files of the image and the mask."""
        return "".join(map(sha256, self._paths[index]))

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self._paths[index]
        image = read_image(image_path)
        return Sample(image, read_labels(label_path, self._train_ids, image.shape[-2:]), self.ids[index])
