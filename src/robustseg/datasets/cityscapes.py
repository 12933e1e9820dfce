"""Cityscapes in its official tree: `leftImg8bit/SPLIT/CITY` images beside `gtFine/SPLIT/CITY` index masks.

19 classes and void (Cordts et al. 2016). The labels of the test split are withheld, so many papers choose on one part
of `val` and measure on another: `lindau` and `frankfurt+munster` are those parts, by city.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from robustseg.core.errors import DatasetNotFound, SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.registry import dataset
from robustseg.core.spaces import CITYSCAPES, CITYSCAPES_TRAIN_IDS
from robustseg.datasets.files import folders_in, images_in, read_labels, require_masks
from robustseg.datasets.paired import Paired

TREE = """ROOT/
  leftImg8bit/
    train/  aachen/     aachen_000000_000019_leftImg8bit.png …
    val/    frankfurt/  frankfurt_000000_000294_leftImg8bit.png …
  gtFine/
    train/  aachen/     aachen_000000_000019_gtFine_labelIds.png …   (or …_gtFine_labelTrainIds.png)
    val/    frankfurt/  frankfurt_000000_000294_gtFine_labelIds.png …"""

CITIES = {
    "train": None,
    "val": None,
    "test": None,
    "lindau": ("lindau",),
    "frankfurt+munster": ("frankfurt", "munster"),
}
"""Split -> the cities of `val` that it consists of; None is every city of the folder of that name."""

LABEL_IDS, LABEL_TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
LAST_LABEL_ID = 33


@dataset("cityscapes")
class Cityscapes(Paired):
    """Cityscapes frames with their fine labels.

    Args:
        root: the folder that holds `leftImg8bit` and `gtFine`; images PNG or JPEG. Masks with labelIds are read where
            they are there, with labelTrainIds otherwise: labelIds mean the same to everybody.
        split: `train`, `val`, `test`, or `lindau` and `frankfurt+munster` (see above).

    Raises:
        DatasetNotFound: a folder or a label map is missing, or the split is empty. SpecError: there is no such split.
    """

    def __init__(self, root: str, *, split: str = "val"):
        if split not in CITIES:
            raise SpecError(f"expected a split of Cityscapes, got {split!r}; try {', '.join(map(repr, CITIES))}")
        self.spec = f"cityscapes(root={root!r}, split={split!r})"
        self.label_space = CITYSCAPES
        pairs = _pairs(Path(root), "val" if CITIES[split] else split, CITIES[split])
        self.ids = tuple(sorted(pairs))
        self.paths = [pairs[i] for i in self.ids]

    def read_mask(self, path: Path, size: Sequence[int]) -> Tensor:
        """Labels of a mask of labelIds or of labelTrainIds."""
        return read_labels(path, _label_ids(), size) if path.name.endswith(LABEL_IDS) else super().read_mask(path, size)


def _pairs(root: Path, folder: str, cities: tuple[str, ...] | None) -> dict[str, tuple[Path, Path]]:
    """Id -> (image, mask) of the wanted cities, every one of `folder` where None."""
    images, masks = root / "leftImg8bit" / folder, root / "gtFine" / folder
    for needed in (images, masks):
        if not needed.is_dir():
            raise DatasetNotFound(f"expected the folder '{needed}' of Cityscapes, got none; try this tree:\n{TREE}")
    there = [city.name for city in folders_in(images)]
    lost = [city for city in cities or () if city not in there]
    if lost:
        raise DatasetNotFound(f"expected the city '{lost[0]}' in '{images}', got none; try this tree:\n{TREE}")
    pairs = {}
    for city in cities or there:
        for image in images_in(images / city):
            key = image.stem.removesuffix("_leftImg8bit")
            mask = masks / city / f"{key}{LABEL_IDS}"
            other = masks / city / f"{key}{LABEL_TRAIN_IDS}"
            pairs[key] = (image, other if other.is_file() and not mask.is_file() else mask)
    if not pairs:
        raise DatasetNotFound(f"expected images in the cities of '{images}', got none; try this tree:\n{TREE}")
    require_masks(list(pairs.values()), tree=TREE)
    return pairs


def _label_ids() -> np.ndarray:
    """The table for masks of labelIds: 19 of the 34 are classes, the others void."""
    table = np.full(256, -1, np.int64)
    table[: LAST_LABEL_ID + 1] = IGNORE
    table[IGNORE] = IGNORE
    for label_id, train_id in CITYSCAPES_TRAIN_IDS.items():
        table[label_id] = train_id
    return table
