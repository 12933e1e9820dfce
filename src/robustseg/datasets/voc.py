"""Pascal VOC 2012 in its official tree, and the further labels of SBD beside it.

20 classes, background, and void along the borders of objects (Everingham et al. 2015). Most papers train on `trainaug`,
10,582 images: all that VOC trains on or SBD labels (Hariharan et al. 2011), less VOC's `val`. SBD has no void.

Images differ in size; none is larger than 500x500. They are padded at the right and bottom with the mean colour of
ImageNet to 513x513, and labelled void there, as the code of Arnab et al. 2018 pads them.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustseg.core.errors import DatasetNotFound, MissingExtra, RobustsegError, ShapeError, SpecError
from robustseg.core.files import text_of
from robustseg.core.labels import IGNORE
from robustseg.core.registry import dataset
from robustseg.core.spaces import VOC
from robustseg.core.types import Sample
from robustseg.datasets.files import checked_labels, images_in, require_masks, train_ids_of
from robustseg.datasets.paired import Paired

TREE = """ROOT/
  VOCdevkit/VOC2012/
    ImageSets/Segmentation/  train.txt  val.txt
    JPEGImages/              2007_000032.jpg …
    SegmentationClass/       2007_000032.png …
    SegmentationClassAug/    2008_000002.png …              (for split='trainaug'; or SBD itself:)
  benchmark_RELEASE/dataset/
    train.txt  val.txt
    cls/                     2008_000002.mat …"""

SPLITS = ("train", "val", "trainaug")
SIZE = 513
MEAN_COLOUR = (124, 117, 104)
"""Of ImageNet, RGB in whole gray levels."""


@dataset("voc")
class VOC2012(Paired):
    """Pascal VOC 2012 images with their class labels, padded to 513x513; `trainaug` adds the labels of SBD.

    Args:
        root: the folder that holds `VOCdevkit` and, for `trainaug`, `benchmark_RELEASE`, unless VOC's own folder has
            SBD's labels as index masks in `SegmentationClassAug`.
        split: `train` (1,464 images), `val` (1,449) or `trainaug`. VOC's own labels are taken where it has some.
        pad: False leaves the images at their sizes.

    Raises:
        DatasetNotFound: a folder, a list, an image or a label map is missing. SpecError: there is no such split.
        MissingExtra: labels of SBD are MATLAB files, and scipy is not installed.

    Source: Everingham et al., IJCV 111(1), 2015; Hariharan et al., ICCV 2011; padding: code of Arnab et al., CVPR 2018.
    """

    def __init__(self, root: str, *, split: str = "val", pad: bool = True):
        if split not in SPLITS:
            raise SpecError(f"expected a split of VOC, got {split!r}; try {', '.join(map(repr, SPLITS))}")
        self.spec = f"voc(root={root!r}, split={split!r}{'' if pad else ', pad=False'})"
        self.label_space = VOC
        self._pad = pad
        masks = _masks(Path(root), split)
        images = Path(root) / "VOCdevkit" / "VOC2012" / "JPEGImages"
        self.ids = tuple(sorted(masks))
        self.paths = [(images / f"{name}.jpg", masks[name]) for name in self.ids]
        lost = [image for image, _ in self.paths if not image.is_file()]
        if lost:
            raise DatasetNotFound(
                f"expected {len(self.ids)} images of VOC, got none for {len(lost)}, the first at '{lost[0]}'; "
                f"try this tree:\n{TREE}"
            )
        require_masks(self.paths, tree=TREE)

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return _padded(sample, self.paths[index][0]) if self._pad else sample

    def read_mask(self, path: Path, size: Sequence[int]) -> Tensor:
        """Labels of an index mask or of a MATLAB file."""
        if path.suffix == ".mat":
            return checked_labels(_matlab_labels(path), path, train_ids_of(len(VOC)), size)
        return super().read_mask(path, size)


def _masks(root: Path, split: str) -> dict[str, Path]:
    """Name -> label map of a split."""
    voc = root / "VOCdevkit" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    own = {
        name: voc / "SegmentationClass" / f"{name}.png" for name in _listed(lists / f"{split.removesuffix('aug')}.txt")
    }
    if split != "trainaug":
        return own
    withheld = set(_listed(lists / "val.txt"))
    return {name: path for name, path in _further(root).items() if name not in withheld} | own


def _further(root: Path) -> dict[str, Path]:
    """Name -> label map of what SBD labels: index masks where there are some, MATLAB files otherwise."""
    masks, sbd = root / "VOCdevkit" / "VOC2012" / "SegmentationClassAug", root / "benchmark_RELEASE" / "dataset"
    if masks.is_dir():
        return {path.stem: path for path in images_in(masks)}
    names = [name for part in ("train.txt", "val.txt") for name in _listed(sbd / part)]
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtra("scipy", "voc")
    return {name: sbd / "cls" / f"{name}.mat" for name in names}


def _listed(path: Path) -> list[str]:
    """The names in a list of a split."""
    names = text_of(path).split() if path.is_file() else []
    if not names:
        raise DatasetNotFound(f"expected names of images in '{path}' of VOC, got none; try this tree:\n{TREE}")
    return names


def _matlab_labels(path: Path) -> np.ndarray:
    """The class map of a file of SBD."""
    from scipy.io import loadmat

    try:
        found: Any = loadmat(str(path))["GTcls"][0]["Segmentation"][0]
    except Exception as error:  # scipy lets through whatever a torn file makes it stumble over
        raise RobustsegError(
            f"expected class labels of SBD, GTcls.Segmentation, in '{path}', got '{error}'; try copying this file again"
        ) from error
    return np.asarray(found, np.uint8)


def _padded(sample: Sample, path: Path) -> Sample:
    height, width = sample.labels.shape
    if max(height, width) > SIZE:
        raise ShapeError(f"expected at most {SIZE}x{SIZE} pixels in '{path}', got {width}x{height}; try pad=False")
    image = (torch.tensor(MEAN_COLOUR) / 255).view(3, 1, 1).repeat(1, SIZE, SIZE)
    labels = torch.full((SIZE, SIZE), IGNORE)
    image[:, :height, :width], labels[:height, :width] = sample.image, sample.labels
    return Sample(image, labels, sample.id)
