"""Frames with LiDAR depth, poses and intrinsics in one folder, as cut from TRI's DGP scenes: for measuring depth.

`FOLDER/meta.json` lists the frames of all cameras in order: `image` and `depth` (files of the folder), `camera`,
`intrinsics` (fx, fy, cx, cy), `pose_world_from_camera` (4x4, metres). Guizilini et al., CVPR 2020 (the scenes).
"""

import json
from pathlib import Path

import numpy as np

from robustseg.core.errors import DatasetNotFound, RobustsegError
from robustseg.core.registry import dataset
from robustseg.core.spaces import Classes
from robustseg.datasets.sequence import Images
from robustseg.datasets.triplets import Drive, Triplets, camera_matrix, size_of


@dataset("dgp")
def dgp(root: str, *, neighbours: bool = False, classes: Classes = "camvid") -> Triplets:
    """Frames with sparse LiDAR depth and intrinsics; with `neighbours` those that have a frame before and after, and poses.

    Args:
        root: the folder of `meta.json`, whose name begins the ids.
        neighbours: triplets in place of single frames.
        classes: the label space to stand beside labelled data.

    Raises:
        DatasetNotFound: there is no `meta.json`. RobustsegError: it does not hold what it should.
    """
    file = Path(root) / "meta.json"
    if not file.is_file():
        raise DatasetNotFound(f"expected meta.json in '{root}', got none; try the folder of one scene")
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        cameras: dict[str, list[dict]] = {}
        for entry in entries:
            cameras.setdefault(entry["camera"], []).append(entry)
        drives = [_drive(Path(root), camera, cameras[camera]) for camera in sorted(cameras)]
    except RobustsegError:
        raise
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise RobustsegError(
            f"expected frames with image, depth, camera, intrinsics and pose_world_from_camera in '{file}', got {error!r}; "
            "try the file as it came"
        ) from error
    named = ", neighbours=True" * neighbours
    return Triplets(drives, spec=f"dgp(root={root!r}{named})", classes=classes, neighbours=neighbours)


def _drive(folder: Path, camera: str, entries: list[dict]) -> Drive:
    paths = [folder / entry["image"] for entry in entries]
    four = [entries[0]["intrinsics"][name] for name in ("fx", "fy", "cx", "cy")]
    return Drive(
        [f"{folder.resolve().name}-{camera}_{i:06d}" for i in range(len(paths))],
        Images(paths),
        camera_matrix(four, size_of(paths[0]), of=paths[0]),
        np.array([entry["pose_world_from_camera"] for entry in entries], np.float64).reshape(-1, 4, 4),
        {i: folder / entry["depth"] for i, entry in enumerate(entries) if entry.get("depth")},
    )
