"""Streets as files: the SegNet layout with depth and poses, and the way back."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from PIL import Image

from robustseg.core.errors import DatasetNotFound
from robustseg.core.files import make_folder, read_json, sole_writer, write_whole
from robustseg.core.folders import claim
from robustseg.core.labels import IGNORE
from robustseg.core.levels import to_8bit
from robustseg.core.schema import read_as
from robustseg.core.types import Sample
from robustseg.datasets.files import read_16bit, read_image, read_labels, train_ids_of
from robustseg.datasets.streets.dataset import SPLITS, Streets
from robustseg.datasets.streets.frame import SKY_DEPTH

MOST_DEPTH = 65.535
"""The largest depth (metres) that 16 bits of millimetres hold; what is farther is written as this, the sky as 0."""
VOID = 11
"""Void in the written label maps, as in CamVid."""
TREE = """ROOT/
  test/  streets-9000_000000.png …    testannot/  streets-9000_000000.png …
  testdepth/  streets-9000_000000.png …    poses.json"""


def export(
    folder: str | Path,
    *,
    frames: int = 8,
    size: str | tuple[int, int] = "256x512",
    seed: int = 0,
    split: str = "test",
    scenes: int = 1,
) -> Path:
    """Render `frames` frames of each scene into a folder that `camvid(root=…)` reads.

    Writes `SPLIT/*.png` (8 bit RGB), `SPLITannot/*.png` (train ids, void 11), `SPLITdepth/*.png` (16 bit, millimetres
    along the optical axis, at most 65535, sky 0), `poses.json` (`{id: {intrinsics, pose_next, pose_previous}}`) and
    `streets.json`, which says what was rendered. A finished export is left as it is.

    Args:
        folder: made if need be; one export a folder.
        frames, size, seed, split, scenes: see `Streets`.

    Raises:
        SpecError: the arguments make no sense. RobustsegError: the folder cannot be written, holds something else, or another
            run writes there.
    """
    data, root = Streets(seed=seed, scenes=scenes, frames=frames, size=size, split=split), Path(folder)
    places = [root / f"{split}{kind}" for kind in ("", "annot", "depth")]
    with sole_writer(root):
        claim(root / "streets.json", {"data": data.spec}, (*(f"{place.name}/*" for place in places), "poses.json"))
        if not (root / "poses.json").is_file():
            _write(data, root, places)
    return root


def _write(data: Streets, root: Path, places: Sequence[Path]) -> None:
    poses: dict[str, Any] = {}
    for index in range(len(data)):
        sample = data[index]
        for place, array in zip(places, _arrays(sample), strict=True):
            write_whole(make_folder(place) / f"{sample.id}.png", _png(array))
        poses[sample.id] = {name: sample.extras[name].tolist() for name in ("intrinsics", "pose_next", "pose_previous")}
    write_whole(root / "poses.json", json.dumps(poses, indent=1))


Row3 = tuple[float, float, float]
Row4 = tuple[float, float, float, float]


class _Poses(TypedDict):
    """The entry of a frame in `poses.json`."""

    intrinsics: tuple[Row3, Row3, Row3]
    pose_next: tuple[Row4, Row4, Row4, Row4]
    pose_previous: tuple[Row4, Row4, Row4, Row4]


def read_export(folder: str | Path, *, split: str = "test") -> list[Sample]:
    """Read back what `export` wrote; the sky has `SKY_DEPTH` again, `moving` is not kept.

    Raises:
        DatasetNotFound: the folder does not hold such an export. RobustsegError: its `poses.json` is damaged.
    """
    root = Path(folder)
    if split not in SPLITS or not (root / "poses.json").is_file():
        raise DatasetNotFound(f"expected an export of streets in '{root}', got no poses.json; try this tree:\n{TREE}")
    poses = read_json(root / "poses.json", lambda data: read_as(dict[str, _Poses], data))
    table = train_ids_of(VOID, void=(VOID, IGNORE))
    samples = []
    for name, known in poses.items():
        files = [root / f"{split}{kind}" / f"{name}.png" for kind in ("", "annot", "depth")]
        lost = next((f for f in files if not f.is_file()), None)
        if lost:
            raise DatasetNotFound(f"expected '{lost}' beside poses.json, got no such file; try exporting again")
        image = read_image(files[0])
        millimetres = torch.from_numpy(read_16bit(files[2]))
        depth = torch.where(millimetres == 0, SKY_DEPTH, millimetres.float() / 1000)
        extras = {"depth": depth, **{k: torch.tensor(known[k], dtype=torch.float32) for k in _Poses.__annotations__}}
        samples.append(Sample(image, read_labels(files[1], table, image.shape[-2:]), name, extras))
    return samples


def _arrays(sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = to_8bit(sample.image).permute(1, 2, 0).numpy()
    labels = torch.where(sample.labels == IGNORE, VOID, sample.labels).byte().numpy()
    depth = sample.extras["depth"]
    millimetres = (depth.double() * 1000).round().clamp(1, 65535)
    return image, labels, torch.where(depth >= SKY_DEPTH, 0, millimetres).numpy().astype(np.uint16)


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=4)
    return file.getvalue()
