"""CamVid in SegNet's layout, on a fake tree and on the real frames."""

import pytest

import trees
from robustseg.core import registry
from robustseg.core.errors import DatasetNotFound, RobustsegError, ShapeError, SpecError
from robustseg.datasets.camvid import HOLDOUT_FRAMES, HOLDOUT_GAP, PROTOCOL_CPU, CamVid
from robustseg.testing import check_dataset

DRIVE = [f"0006R0_f{i:05d}" for i in range(40)]
OTHER = ["0001TP_006690", "0016E5_00390"]


@pytest.fixture
def root(tmp_path):
    frames = {"train": OTHER + DRIVE, "val": ["0016E5_07959"], "test": ["Seq05VD_f00000", "0001TP_008550"]}
    return trees.camvid(tmp_path / "camvid", frames)


def test_a_split_conforms_and_is_read_by_id(root):
    data = CamVid(str(root), split="test")
    check_dataset(data)
    assert data.ids == ("0001TP_008550", "Seq05VD_f00000")
    assert sorted(data[0].labels.unique().tolist()) == [*range(11), 255]
    assert data.label_space.names[9] == "pedestrian"


def test_jpegs_are_images_too(tmp_path):
    trees.write_image(tmp_path / "val" / "a_1.jpg")
    trees.write_mask(tmp_path / "valannot" / "a_1.png", [3])
    assert CamVid(str(tmp_path), split="val").ids == ("a_1",)


def test_fit_and_holdout_part_the_training_drive_with_a_gap(root):
    train, fit, holdout = (CamVid(str(root), split=s).ids for s in ("train", "fit", "holdout"))
    assert holdout == tuple(DRIVE[-HOLDOUT_FRAMES:])
    assert set(fit) == {*OTHER, *DRIVE[: -HOLDOUT_FRAMES - HOLDOUT_GAP]}
    assert len(train) == len(fit) + len(holdout) + HOLDOUT_GAP


def test_protocol_cpu_is_the_committed_list(tmp_path):
    wanted = PROTOCOL_CPU.read_text().split()
    trees.camvid(tmp_path, {"test": ["Seq05VD_f00000", *wanted]})
    assert CamVid(str(tmp_path), subset="cpu").ids == tuple(wanted)
    assert len(wanted) == 40
    (tmp_path / "test" / f"{wanted[3]}.png").unlink()
    with pytest.raises(DatasetNotFound, match=rf"the 40 test frames of protocol cpu, got 39; '{wanted[3]}' is missing"):
        CamVid(str(tmp_path), subset="cpu")


def test_the_spec_names_what_was_given_and_rebuilds(tmp_path):
    trees.camvid(tmp_path, {"test": PROTOCOL_CPU.read_text().split()})
    data = CamVid(str(tmp_path), subset="cpu")
    assert data.spec == f"camvid(root='{tmp_path}', split='test', subset='cpu')"
    again = registry.build("data", data.spec)
    assert (again.spec, again.ids) == (data.spec, data.ids)
    assert CamVid(str(tmp_path)).spec == f"camvid(root='{tmp_path}', split='test')"


def test_a_missing_folder_shows_the_tree(tmp_path, root):
    with pytest.raises(
        DatasetNotFound, match=r"(?s)'.*nowhere/test' of CamVid, got none; try this tree:\nROOT/.*testannot/"
    ):
        CamVid(str(tmp_path / "nowhere"))
    for path in (root / "testannot").iterdir():
        path.unlink()
    with pytest.raises(DatasetNotFound, match=r"(?s)none for 2 of 2, .*testannot/0001TP_008550\.png'; try this tree"):
        CamVid(str(root))
    (root / "testannot").rmdir()
    with pytest.raises(DatasetNotFound, match=r"testannot' of CamVid, got none; try this tree"):
        CamVid(str(root))


def test_an_empty_split_is_refused(tmp_path, root):
    for path in (root / "val").iterdir():
        path.unlink()
    with pytest.raises(DatasetNotFound, match=r"expected images in '.*val', got none; try"):
        CamVid(str(root), split="val")
    trees.camvid(tmp_path / "other", {"train": OTHER})
    with pytest.raises(DatasetNotFound, match=r"frames of sequence 0006R0 in '.*' to hold out, got none; try"):
        CamVid(str(tmp_path / "other"), split="holdout")


def test_unknown_splits_and_subsets_name_the_known(root):
    with pytest.raises(SpecError, match=r"expected a split of CamVid, got 'tset'; try 'train', 'val', 'test'"):
        CamVid(str(root), split="tset")
    with pytest.raises(SpecError, match=r"expected a subset .*, got 'gpu' of 'test'; try"):
        CamVid(str(root), subset="gpu")
    with pytest.raises(SpecError, match=r"expected a subset .*, got 'cpu' of 'val'; try"):
        CamVid(str(root), split="val", subset="cpu")
    with pytest.raises(SpecError, match="try camvid"):
        registry.build("data", "camvit(root='x')")


def test_spoiled_masks_are_named_when_read(root):
    mask = root / "testannot" / "Seq05VD_f00000.png"
    data = CamVid(str(root))
    trees.write_mask(mask, [0, 12])
    with pytest.raises(RobustsegError, match=r"values 0 to 10 or void in '.*Seq05VD_f00000\.png', got 12; try"):
        data[1]
    trees.write_mask(mask, [0], (6, 9))
    with pytest.raises(ShapeError, match=r"size 8x6 in '.*', got 9x6; try"):
        data[1]


def test_the_real_frames(shared_data):
    root = str(shared_data / "camvid")
    lengths = {s: len(CamVid(root, split=s)) for s in ("train", "val", "test", "fit", "holdout")}
    assert lengths == {"train": 367, "val": 101, "test": 233, "fit": 334, "holdout": 30}
    cpu = CamVid(root, subset="cpu")
    check_dataset(cpu)
    assert sum(i.startswith("Seq05VD") for i in cpu.ids) == 29
    assert len(cpu) == 40
