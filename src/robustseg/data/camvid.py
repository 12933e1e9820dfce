"""CamVid in the SegNet layout: `ROOT/{train,val,test}` images beside `ROOT/{train,val,test}annot` index masks.

11 classes and void (Brostow et al. 2009; grouping of Badrinarayanan et al. 2017). The published splits overlap in
place and time: `val` lies in a gap of a training drive, and of `test` only the sequence Seq05VD is a new drive. So two
more splits serve to choose on: `holdout` is the last 30 frames of training sequence 0006R0, `fit` is `train` without
them and without the 3 frames (3 seconds) before.
"""

from pathlib import Path

from robustseg.data.files import images_in, read_image, read_labels, train_ids_of
from robustseg.records import DatasetNotFound, SpecError
from robustseg.registry import dataset
from robustseg.spaces import CAMVID
from robustseg.types import Sample

TREE = """ROOT/
  train/  0001TP_006690.png …     trainannot/  0001TP_006690.png …
  val/    0016E5_07959.png …      valannot/    0016E5_07959.png …
  test/   Seq05VD_f00000.png …    testannot/   Seq05VD_f00000.png …"""

SPLITS = ("train", "val", "test", "fit", "holdout")
PROTOCOL_CPU = Path(__file__).with_name("camvid_cpu.txt")
HOLDOUT_SEQUENCE, HOLDOUT_FRAMES, HOLDOUT_GAP = "0006R0", 30, 3


@dataset("camvid")
class CamVid:
    """CamVid frames with their labels, or any data in its layout and classes.

    Args:
        root: the folder that holds `train`, `trainannot` and so on; images PNG or JPEG, masks 8-bit PNG, 11 = void.
        split: `train`, `val`, `test`, or `fit` and `holdout` (see above).
        subset: `cpu` takes the 40 test frames of protocol `cpu` (`camvid_cpu.txt`), 29 of Seq05VD and 11 of 0001TP,
            spread evenly over both.

    Raises:
        DatasetNotFound: a folder or a label map is missing, or the split is empty.
    """

    def __init__(self, root: str, *, split: str = "test", subset: str | None = None):
        if split not in SPLITS:
            raise SpecError(f"expected a split of {', '.join(SPLITS)}, got '{split}'")
        if subset not in (None, "cpu"):
            raise SpecError(f"expected subset='cpu' or none, got '{subset}'")
        self.spec = f"camvid(root={root!r}, split={split!r})"  # replaced by the full text when built from a spec
        self.label_space = CAMVID
        folder = "train" if split in ("fit", "holdout") else split
        pairs = _pairs(Path(root), folder)
        keep = _held_out if split == "holdout" else _fitted if split == "fit" else list
        self.ids = tuple(keep(sorted(pairs)))
        if subset == "cpu":
            self.ids = tuple(i for i in self.ids if i in PROTOCOL_CPU.read_text().split())
        self._paths = [pairs[i] for i in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self._paths[index]
        image = read_image(image_path)
        table = train_ids_of(len(CAMVID), void=(11, 255))
        return Sample(image, read_labels(label_path, table, tuple(image.shape[-2:])), self.ids[index])


def _pairs(root: Path, split: str) -> dict[str, tuple[Path, Path]]:
    images, masks = root / split, root / f"{split}annot"
    for folder in (images, masks):
        if not folder.is_dir():
            raise DatasetNotFound(f"expected CamVid's folder '{folder}', got none; try this tree:\n{TREE}")
    pairs = {path.stem: (path, masks / f"{path.stem}.png") for path in images_in(images)}
    if not pairs:
        raise DatasetNotFound(f"expected images in '{images}', got an empty split; try this tree:\n{TREE}")
    for image, mask in pairs.values():
        if not mask.is_file():
            raise DatasetNotFound(
                f"expected the labels of '{image}' at '{mask}', got no such file; try this tree:\n{TREE}"
            )
    return pairs


def _held_out(ids: list[str]) -> list[str]:
    return [i for i in ids if i.startswith(HOLDOUT_SEQUENCE)][-HOLDOUT_FRAMES:]


def _fitted(ids: list[str]) -> list[str]:
    left_out = {i for i in ids if i.startswith(HOLDOUT_SEQUENCE)}
    left_out = set(sorted(left_out)[-HOLDOUT_FRAMES - HOLDOUT_GAP :])
    return [i for i in ids if i not in left_out]
