"""KITTI's drives as triplets: the odometry tree, with poses, and the raw tree, with sparse depth where it was downloaded.

The frames of both are rectified, so one matrix of the calibration is the camera. Geiger, Lenz, Stiller, Urtasun, IJRR 2013.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from robustseg.core.errors import DatasetNotFound, RobustsegError, SpecError
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes
from robustseg.datasets.files import folders_in, images_in
from robustseg.datasets.sequence import Images, images_at
from robustseg.datasets.triplets import Drive, Triplets, camera_matrix, size_of

ODOMETRY = """ROOT/
  sequences/  00/  calib.txt   image_2/  000000.png …   (or image_0, image_1, image_3)
  poses/      00.txt …                                  (of sequences 00 to 10)
or one sequence alone: ROOT/  calib.txt   image_2/ …   poses.txt"""

RAW = """ROOT/
  2011_09_26/  calib_cam_to_cam.txt
               2011_09_26_drive_0001_sync/  image_02/  data/  0000000000.png …
DEPTH/ (the annotated depth maps, if you have them)
  train/       2011_09_26_drive_0001_sync/  proj_depth/  groundtruth/  image_02/  0000000005.png …"""

CAMERAS = (2, 0, 3, 1)
"""Which camera of a drive is taken: the first of these that is there. 2 and 3 see in colour, 0 and 1 in grey."""


@dataset("kitti_odometry")
def kitti_odometry(
    root: str, *, sequences: Sequence[str] | None = None, step: int = 1, classes: Classes = "camvid"
) -> Triplets:
    """KITTI's odometry sequences as triplets with intrinsics, and poses where they are given.

    Args:
        root: the folder that holds `sequences`, or one sequence.
        sequences: names such as `'06'`; None: all that are there.
        step, classes: see `clip`.

    Raises:
        DatasetNotFound: a folder, a calibration or frames are missing. SpecError: there is no such sequence.
        RobustsegError: a file of numbers does not hold them, or poses and frames are not as many.
    """
    place = Path(root)
    if (place / "sequences").is_dir():
        there = {p.name: (p, place / "poses" / f"{p.name}.txt") for p in folders_in(place / "sequences")}
    else:
        there = {place.resolve().name: (place, place / "poses.txt")}
    drives = [_sequence(name, *there[name]) for name in _chosen(sequences, there, "sequence")]
    given = f", sequences={tuple(sequences)!r}" if sequences is not None else ""
    return Triplets(drives, spec=f"kitti_odometry(root={root!r}{given})", step=step, classes=classes)


def _sequence(name: str, folder: Path, poses: Path) -> Drive:
    camera = next((c for c in CAMERAS if (folder / f"image_{c}").is_dir()), None)
    if camera is None or not (folder / "calib.txt").is_file():
        raise DatasetNotFound(
            f"expected calib.txt and image_2 or image_0 in '{folder}', got {'no images' if camera is None else 'no calib.txt'}"
            f"; try this tree:\n{ODOMETRY}"
        )
    frames = images_at(folder / f"image_{camera}")
    matrix = _matrix(folder / "calib.txt", f"P{camera}")
    world = None
    if poses.is_file():
        world = _poses(poses, len(frames))
        # Poses are those of camera 0; the others stand beside it, P = K [I | -place].
        beside = np.eye(4)
        beside[0, 3] = -matrix[0, 3] / matrix[0, 0]
        world = world @ beside
    ids = [f"{name}_{path.stem}" for path in frames.paths]
    return Drive(ids, frames, _camera(matrix, frames), world)


def _poses(path: Path, frames: int) -> np.ndarray:
    try:
        rows = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise RobustsegError(f"expected 12 numbers a line in '{path}', got '{error}'; try KITTI's poses") from error
    if rows.shape != (frames, 12) or not np.isfinite(rows).all():
        raise RobustsegError(
            f"expected {frames} poses of 12 numbers in '{path}', one a frame, got {rows.shape[0]} of {rows.shape[1]}; "
            "try the poses of this sequence"
        )
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3] = rows.reshape(frames, 3, 4)
    return poses


@dataset("kitti_raw")
def kitti_raw(
    root: str,
    *,
    drives: Sequence[str] | None = None,
    depth: str | None = None,
    step: int = 1,
    classes: Classes = "camvid",
) -> Triplets:
    """KITTI's raw drives as triplets with intrinsics, and sparse depth where maps are given.

    Args:
        root: the folder of the dates.
        drives: names such as `'2011_09_26_drive_0001_sync'`; None: all that are there.
        depth: the folder of the annotated depth maps (`train` and `val` of KITTI's depth prediction); None: no depth.
        step, classes: see `clip`.

    Raises:
        DatasetNotFound: a folder, a calibration or frames are missing. SpecError: there is no such drive.
        RobustsegError: a file of numbers does not hold them.
    """
    found = {p.name: p for p in sorted(Path(root).glob("*/*_drive_*")) if p.is_dir()}
    if not found:
        raise DatasetNotFound(f"expected drives in '{root}', got none; try this tree:\n{RAW}")
    if depth is not None and not any(Path(depth).glob("*/*_drive_*")):
        raise DatasetNotFound(f"expected depth maps in '{depth}', got none; try this tree:\n{RAW}")
    taken = [_drive(found[name], None if depth is None else Path(depth)) for name in _chosen(drives, found, "drive")]
    given = f", drives={tuple(drives)!r}" if drives is not None else ""
    given += f", depth={depth!r}" if depth is not None else ""
    return Triplets(taken, spec=f"kitti_raw(root={root!r}{given})", step=step, classes=classes)


def _drive(folder: Path, depth: Path | None) -> Drive:
    camera = next((c for c in CAMERAS if (folder / f"image_{c:02}" / "data").is_dir()), None)
    calibration = folder.parent / "calib_cam_to_cam.txt"
    if camera is None or not calibration.is_file():
        lost = f"image_02/data in '{folder}'" if camera is None else f"'{calibration}'"
        raise DatasetNotFound(f"expected {lost}, got none; try this tree:\n{RAW}")
    frames = images_at(folder / f"image_{camera:02}" / "data")
    maps = {}
    if depth is not None:
        inside = Path(folder.name) / "proj_depth" / "groundtruth" / f"image_{camera:02}"
        known = {
            p.stem: p for split in folders_in(depth) if (split / inside).is_dir() for p in images_in(split / inside)
        }
        maps = {i: known[path.stem] for i, path in enumerate(frames.paths) if path.stem in known}
    ids = [f"{folder.name}_{path.stem}" for path in frames.paths]
    return Drive(ids, frames, _camera(_matrix(calibration, f"P_rect_{camera:02}"), frames), depths=maps)


def _chosen(names: Sequence[str] | None, there: Collection[str], what: str) -> list[str]:
    lost = [name for name in names or () if name not in there]
    if lost:
        raise SpecError(f"expected a {what} that is there, got '{lost[0]}'; try {', '.join(list(there)[:8])}")
    return list(there if names is None else names)


def _matrix(path: Path, name: str) -> np.ndarray:
    """The 3x4 matrix behind `NAME:` of a file of KITTI's calibration."""
    lines = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    try:
        return np.array(lines[name].split(), dtype=np.float64).reshape(3, 4)
    except (KeyError, ValueError) as error:
        raise RobustsegError(f"expected 12 numbers after '{name}:' in '{path}', got none; try KITTI's file") from error


def _camera(matrix: np.ndarray, frames: Images) -> Tensor:
    first = frames.paths[0]
    return camera_matrix((matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]), size_of(first), of=first)
