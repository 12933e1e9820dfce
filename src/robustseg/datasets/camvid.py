"""CamVid in the SegNet layout: `ROOT/{train,val,test}` images beside `ROOT/{train,val,test}annot` index masks.

11 classes and void (Brostow et al. 2009; grouping of Badrinarayanan et al. 2017). The published splits overlap in
place and time: `val` lies in a gap of a training drive, and of `test` only the sequence Seq05VD is a new drive. So two
more splits serve to choose on: `holdout` is the last 30 frames of training sequence 0006R0, `fit` is `train` without
them and without the 3 frames (3 seconds) before.
"""

from pathlib import Path

from robustseg.core.errors import DatasetNotFound, SpecError
from robustseg.core.registry import dataset
from robustseg.core.spaces import CAMVID
from robustseg.datasets.files import paired
from robustseg.datasets.paired import Paired

TREE = """ROOT/
  train/  0001TP_006690.png …     trainannot/  0001TP_006690.png …
  val/    0016E5_07959.png …      valannot/    0016E5_07959.png …
  test/   Seq05VD_f00000.png …    testannot/   Seq05VD_f00000.png …"""

SPLITS = ("train", "val", "test", "fit", "holdout")
PROTOCOL_CPU = Path(__file__).with_name("camvid_cpu.txt")
HOLDOUT_SEQUENCE, HOLDOUT_FRAMES, HOLDOUT_GAP = "0006R0", 30, 3


@dataset("camvid")
class CamVid(Paired):
    """CamVid frames with their labels, or any data in its layout and classes.

    Args:
        root: the folder that holds `train`, `trainannot` and so on; images PNG or JPEG, masks 8-bit PNG, 11 = void.
        split: `train`, `val`, `test`, or `fit` and `holdout` (see above).
        subset: `cpu` takes the 40 test frames of protocol `cpu` (`camvid_cpu.txt`), 29 of Seq05VD and 11 of 0001TP,
            spread evenly over both.

    Raises:
        DatasetNotFound: a folder or a label map is missing, or the split is empty. SpecError: there is no such split.
    """

    void = (11, 255)

    def __init__(self, root: str, *, split: str = "test", subset: str | None = None):
        if split not in SPLITS:
            raise SpecError(f"expected a split of CamVid, got {split!r}; try {', '.join(map(repr, SPLITS))}")
        if subset not in (None, "cpu") or (subset and split != "test"):
            raise SpecError(
                f"expected a subset of CamVid's test split, got {subset!r} of {split!r}; "
                "try split='test', subset='cpu', or no subset"
            )
        named = {"root": root, "split": split, **({"subset": subset} if subset else {})}
        self.spec = f"camvid({', '.join(f'{name}={value!r}' for name, value in named.items())})"
        self.label_space = CAMVID
        folder = "train" if split in ("fit", "holdout") else split
        pairs = paired(Path(root) / folder, Path(root) / f"{folder}annot", what="CamVid", tree=TREE)
        self.ids = tuple(_chosen(sorted(pairs), split, subset))
        if not self.ids:
            raise DatasetNotFound(
                f"expected frames of sequence {HOLDOUT_SEQUENCE} in '{Path(root) / folder}' to hold out, got none; "
                "try split='train' and split='val'"
            )
        self.paths = [pairs[i] for i in self.ids]


def _chosen(ids: list[str], split: str, subset: str | None) -> list[str]:
    """Which of the frames of a folder a split keeps."""
    if subset == "cpu":
        wanted = PROTOCOL_CPU.read_text(encoding="utf-8").split()
        lost = sorted(set(wanted) - set(ids))
        if lost:
            raise DatasetNotFound(
                f"expected the {len(wanted)} test frames of protocol cpu, got {len(wanted) - len(lost)}; "
                f"'{lost[0]}' is missing; try all of CamVid's test split"
            )
        return wanted
    sequence = [i for i in ids if i.startswith(HOLDOUT_SEQUENCE)]
    if split == "holdout":
        return sequence[-HOLDOUT_FRAMES:]
    if split == "fit":
        left_out = set(sequence[-HOLDOUT_FRAMES - HOLDOUT_GAP :])
        return [i for i in ids if i not in left_out]
    return ids
