"""Fake data sets on disk for the tests of what reads them."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, size: tuple[int, int] = (6, 8), *, seed: int = 0) -> Path:
    """A noisy RGB picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, values: np.ndarray | list[int], size: tuple[int, int] = (6, 8)) -> Path:
    """An 8-bit mask: `values` as they are where they have two axes, else repeated over (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, np.uint8)
    Image.fromarray(array if array.ndim == 2 else np.resize(array, size)).save(path)
    return path


def camvid(root: Path, frames: dict[str, list[str]]) -> Path:
    """SegNet's layout: split -> names of frames; masks hold all 11 classes and void (11)."""
    for split, names in frames.items():
        for i, name in enumerate(names):
            write_image(root / split / f"{name}.png", seed=i)
            write_mask(root / f"{split}annot" / f"{name}.png", list(range(12)))
    return root


def cityscapes(root: Path, frames: dict[str, list[str]], *, kind: str = "labelIds", suffix: str = "png") -> Path:
    """The official tree: split -> names of frames such as `lindau_000000_000019`; masks hold ids 0 to 33."""
    for split, names in frames.items():
        for i, name in enumerate(names):
            place = Path(split) / name.partition("_")[0]
            write_image(root / "leftImg8bit" / place / f"{name}_leftImg8bit.{suffix}", seed=i)
            values = range(34) if kind == "labelIds" else [*range(19), 255]
            write_mask(root / "gtFine" / place / f"{name}_gtFine_{kind}.png", list(values))
    return root


def folder(root: Path, sizes: dict[str, tuple[int, int]], *, values: tuple[int, ...] = (0, 1, 2, 255)) -> Path:
    """`images/NAME` beside `labels/STEM.png`: file name -> (height, width)."""
    for i, (name, size) in enumerate(sizes.items()):
        write_image(root / "images" / name, size, seed=i)
        write_mask(root / "labels" / f"{Path(name).stem}.png", list(values), size)
    return root


def depth_map(path: Path, metres: np.ndarray) -> Path:
    """A 16-bit PNG of metres times 256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(metres) * 256).astype(np.uint16)).save(path)
    return path


def pose_line(z: float) -> str:
    """World from a camera that has driven `z` metres, as KITTI writes it."""
    return " ".join(map(str, np.hstack([np.eye(3), [[0], [0], [z]]]).ravel()))


def kitti_odometry(root: Path, *, sequences: tuple[str, ...] = ("00", "06"), frames: int = 4) -> Path:
    """KITTI's odometry tree; every frame half a metre on. Camera 2 stands 0.25 m to the left of camera 0."""
    for name in sequences:
        place = root / "sequences" / name
        for i in range(frames):
            write_image(place / "image_2" / f"{i:06d}.png", (6, 8), seed=i)
        projection = "10 0 3.5 {} 0 12 2.5 0 0 0 1 0"
        (place / "calib.txt").write_text(f"P0: {projection.format(0)}\nP2: {projection.format(2.5)}\n")
        (root / "poses").mkdir(exist_ok=True)
        (root / "poses" / f"{name}.txt").write_text("\n".join(pose_line(0.5 * i) for i in range(frames)))
    return root


def kitti_raw(root: Path, *, frames: int = 4) -> Path:
    """KITTI's raw tree under `raw` and annotated depth of the second frame, 7 m everywhere, under `depth`."""
    date, drive = "2011_09_26", "2011_09_26_drive_0001_sync"
    for i in range(frames):
        write_image(root / "raw" / date / drive / "image_02" / "data" / f"{i:010d}.png", (6, 8), seed=i)
    calibration = "calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.9e-02\nP_rect_02: 10 0 3.5 2.5 0 12 2.5 0 0 0 1 0\n"
    (root / "raw" / date / "calib_cam_to_cam.txt").write_text(calibration)
    inside = Path("train") / drive / "proj_depth" / "groundtruth" / "image_02"
    depth_map(root / "depth" / inside / "0000000001.png", np.full((6, 8), 7.0))
    return root


def cityscapes_video(root: Path, *, cities: tuple[str, ...] = ("aachen", "bochum"), frames: int = 5) -> Path:
    """Two snippets a city, of which only the second frame has a calibration."""
    for city in cities:
        for snippet in range(2):
            for i in range(frames):
                name = f"{city}_{snippet:06d}_{i + 10 * snippet:06d}"
                write_image(root / "leftImg8bit_sequence" / "train" / city / f"{name}_leftImg8bit.png", (6, 8), seed=i)
            camera = root / "camera" / "train" / city / f"{city}_{snippet:06d}_{1 + 10 * snippet:06d}_camera.json"
            camera.parent.mkdir(parents=True, exist_ok=True)
            camera.write_text('{"intrinsic": {"fx": 10, "fy": 12, "u0": 3.5, "v0": 2.5}}')
    return root


def voc(root: Path, lists: dict[str, list[str]], *, size: tuple[int, int] = (6, 8)) -> Path:
    """VOC's tree: list -> names such as `2007_000032`; masks hold all 21 classes and void."""
    place = root / "VOCdevkit" / "VOC2012"
    for split, names in lists.items():
        write_list(place / "ImageSets" / "Segmentation" / f"{split}.txt", names)
        for i, name in enumerate(names):
            write_image(place / "JPEGImages" / f"{name}.jpg", size, seed=i)
            write_mask(place / "SegmentationClass" / f"{name}.png", [*range(21), 255], size)
    return root


def write_list(path: Path, names: list[str]) -> Path:
    """A text file with one name a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))
    return path
