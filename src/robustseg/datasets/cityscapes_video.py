"""The video around Cityscapes' labelled frames: snippets of 30 frames at 17 Hz, as triplets without labels.

Cordts et al., CVPR 2016; packages `leftImg8bit_sequence_trainvaltest` and `camera_trainvaltest`.
"""

import json
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from robustseg.core.errors import DatasetNotFound, RobustsegError
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes
from robustseg.datasets.files import folders_in, images_in
from robustseg.datasets.sequence import Images
from robustseg.datasets.triplets import Drive, Triplets, camera_matrix, size_of

TREE = """ROOT/
  leftImg8bit_sequence/  train/  aachen/  aachen_000000_000000_leftImg8bit.png …
  camera/                train/  aachen/  aachen_000000_000019_camera.json …"""

SUFFIX = "_leftImg8bit"


@dataset("cityscapes_video")
def cityscapes_video(root: str, *, split: str = "train", step: int = 1, classes: Classes = "cityscapes") -> Triplets:
    """The frames of Cityscapes' snippets as triplets with intrinsics.

    Args:
        root: the folder that holds `leftImg8bit_sequence` and `camera`. split: `train`, `val` or `test`.
        step: how many frames before and after the neighbours are.
        classes: the label space to stand beside labelled data; no pixel has a label of it.

    Raises:
        DatasetNotFound: a folder, frames or the calibration of a snippet are missing. RobustsegError: no snippet is long
            enough, or a calibration does not hold the four numbers.
    """
    folder = Path(root) / "leftImg8bit_sequence" / split
    if not folder.is_dir():
        raise DatasetNotFound(f"expected the folder '{folder}' of Cityscapes, got none; try this tree:\n{TREE}")
    cities = folders_in(folder)
    drives = [_drive(run, Path(root) / "camera" / split / city.name) for city in cities for run in _runs(city)]
    named = f", split={split!r}" if split != "train" else ""
    return Triplets(drives, spec=f"cityscapes_video(root={root!r}{named})", step=step, classes=classes)


def _runs(city: Path) -> list[list[Path]]:
    """The frames of a city, parted wherever a number is missing or another recording begins."""
    frames = [p for p in images_in(city) if p.stem.endswith(SUFFIX)]
    runs = [frames[:1]] if frames else []
    for before, after in pairwise(frames):
        (one, first), (two, second) = _place(before), _place(after)
        if (two, second) == (one, first + 1):
            runs[-1].append(after)
        else:
            runs.append([after])
    return runs


def _place(path: Path) -> tuple[str, int]:
    """Recording and number of a frame."""
    recording, _, number = path.stem.removesuffix(SUFFIX).rpartition("_")
    return recording, int(number)


def _drive(paths: list[Path], cameras: Path) -> Drive:
    return Drive([path.stem.removesuffix(SUFFIX) for path in paths], Images(paths), _camera(paths, cameras))


def _camera(paths: list[Path], cameras: Path) -> Tensor:
    """The intrinsics of the labelled frame of a snippet, which has the only calibration."""
    known = [cameras / f"{path.stem.removesuffix(SUFFIX)}_camera.json" for path in paths]
    file = next((path for path in known if path.is_file()), None)
    if file is None:
        raise DatasetNotFound(
            f"expected a calibration in '{cameras}' for one of the frames from '{paths[0].name}' to '{paths[-1].name}', "
            f"got none; try this tree:\n{TREE}"
        )
    try:
        numbers = json.loads(file.read_text(encoding="utf-8"))["intrinsic"]
        four = [float(numbers[name]) for name in ("fx", "fy", "u0", "v0")]
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise RobustsegError(
            f"expected fx, fy, u0, v0 under 'intrinsic' in '{file}', got {error!r}; try Cityscapes' file"
        ) from error
    return camera_matrix(four, size_of(paths[0]), of=file)
