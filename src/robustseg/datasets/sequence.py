"""Image files as the frames of one sequence, in the natural order of their names."""

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from robustseg.core.errors import DatasetNotFound, RobustsegError
from robustseg.core.provenance import sha256
from robustseg.datasets.files import images_in, read_image


class Images:
    """Image files by number.

    Args:
        paths: in order.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Images of one folder are one sequence."""
        path = self.paths[index]
        return f"{path.resolve().parent.name}_{path.stem}"

    def __getitem__(self, index: int) -> Tensor:
        """RGB float32 `[3, h, w]` in [0, 1]."""
        return read_image(self.paths[index])

    def fingerprint(self, index: int) -> str:
        """A digest of the file."""
        return sha256(self.paths[index])


def images_at(place: Path) -> Images:
    """The images of a folder, or of a pattern such as `FOLDER/left_*.png`, in natural order: `2.png` before `10.png`.

    Raises:
        DatasetNotFound: there is no image. RobustsegError: two images have the same name, or the names contain numbers
            with decimal points that leave the order open.
    """
    if place.is_dir():
        paths = images_in(place)
    else:
        paths = images_in(place.parent, place.name) if "*" in place.name and place.parent.is_dir() else []
    if not paths:
        raise DatasetNotFound(
            f"expected images or a video at '{place}', got none; try the folder of the images, a pattern such as "
            "'FOLDER/*.png', or the path of a video file"
        )
    stem, count = Counter(path.stem for path in paths).most_common(1)[0]
    if count > 1:
        raise RobustsegError(
            f"expected one image a name in '{place}', got '{stem}' twice; try a pattern such as 'FOLDER/*.png'"
        )
    for before, after in pairwise(paths):
        if _decimals(before) > _decimals(after):
            raise RobustsegError(
                f"expected names that tell the order of the frames in '{place}', got '{before.name}' and '{after.name}', "
                "which are ordered otherwise where the point is a decimal point; try numbers of as many digits"
            )
    return Images(paths)


def _decimals(path: Path) -> tuple[str | Decimal, ...]:
    """What `natural` compares, but with `1.5` as one number: larger than `1.25`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", path.stem.casefold())
    return tuple(Decimal(part) if i % 2 else part for i, part in enumerate(parts))
