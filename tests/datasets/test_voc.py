"""Pascal VOC and SBD, on fake trees."""

import importlib.util
import shutil

import numpy as np
import pytest

import trees
from robustseg.core import registry
from robustseg.core.errors import DatasetNotFound, MissingExtra, RobustsegError, ShapeError, SpecError
from robustseg.core.spaces import VOC
from robustseg.datasets.voc import VOC2012
from robustseg.evaluation.doctor import examine
from robustseg.testing import check_dataset

TRAIN, VAL = ["2007_000032", "2007_000039"], ["2007_000033", "2008_000009"]
MORE = ["2008_000002", "2008_000003"]


@pytest.fixture
def root(tmp_path):
    return trees.voc(tmp_path / "pascal", {"train": TRAIN, "val": VAL})


@pytest.fixture
def sbd(root):
    """SBD as it is published: it labels an image of VOC's train, one of its val, and two that VOC does not."""
    savemat = pytest.importorskip("scipy.io").savemat
    place = root / "benchmark_RELEASE" / "dataset"
    trees.write_list(place / "train.txt", [TRAIN[0], MORE[0]])
    trees.write_list(place / "val.txt", [VAL[0], MORE[1]])
    (place / "cls").mkdir()
    for name in (TRAIN[0], VAL[0], *MORE):
        trees.write_image(root / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{name}.jpg")
        labels = np.full((6, 8), 12, np.uint8)
        savemat(place / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": labels, "CategoriesPresent": [12]}})
    return root


def test_a_split_conforms_and_is_read_by_id(root):
    data = VOC2012(str(root))
    check_dataset(data)
    assert data.ids == tuple(VAL)
    assert data.spec == f"voc(root='{root}', split='val')"
    assert data.label_space.names[15] == "person"
    again = registry.build("data", data.spec)
    assert (again.spec, again.ids) == (data.spec, data.ids)
    assert VOC2012(str(root), split="train").ids == tuple(TRAIN)


def test_images_are_padded_with_the_mean_colour_and_void(root):
    whole, bare = VOC2012(str(root))[0], VOC2012(str(root), pad=False)[0]
    assert whole.image.shape == (3, 513, 513)
    assert bare.image.shape == (3, 6, 8)
    assert (whole.image[:, :6, :8] == bare.image).all()
    assert (whole.labels[:6, :8] == bare.labels).all()
    assert bare.labels.flatten()[:22].tolist() == [*range(21), 255]
    assert (whole.labels[6:] == 255).all()
    assert (whole.labels[:, 8:] == 255).all()
    assert (whole.image[:, 512, 0] * 255).round().tolist() == [124, 117, 104]
    assert registry.build("data", f"voc(root='{root}', pad=False)").spec.endswith("pad=False)")


def test_an_image_that_is_too_large_is_named(tmp_path):
    trees.voc(tmp_path, {"val": VAL[:1]}, size=(4, 514))
    with pytest.raises(ShapeError, match=r"at most 513x513 pixels in '.*2007_000033.jpg', got 514x4; try pad=False"):
        VOC2012(str(tmp_path))[0]


def test_trainaug_is_all_that_is_labelled_less_val(sbd):
    data = VOC2012(str(sbd), split="trainaug", pad=False)
    check_dataset(data)
    assert data.ids == tuple(sorted(TRAIN + MORE))
    by_id = {data.ids[i]: data[i].labels for i in range(len(data))}
    assert (by_id[MORE[0]] == 12).all()
    assert (by_id[TRAIN[0]] == 255).any(), "VOC's own labels come first"


def test_index_masks_of_sbd_are_taken_where_there_are_some(sbd):
    masks = sbd / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    for name in (*TRAIN, *VAL, *MORE):
        trees.write_mask(masks / f"{name}.png", [7])
    shutil.rmtree(sbd / "benchmark_RELEASE")
    data = VOC2012(str(sbd), split="trainaug", pad=False)
    assert data.ids == tuple(sorted(TRAIN + MORE))
    assert (data[2].labels == 7).all()


def test_without_scipy_the_install_line_is_said(sbd, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'robustseg\[voc\]'"):
        VOC2012(str(sbd), split="trainaug")


def test_a_torn_file_of_sbd_is_named(sbd):
    data = VOC2012(str(sbd), split="trainaug")
    (sbd / "benchmark_RELEASE" / "dataset" / "cls" / f"{MORE[0]}.mat").write_bytes(b"torn")
    with pytest.raises(RobustsegError, match=r"GTcls.Segmentation, in '.*2008_000002.mat', got .*; try copying"):
        data[data.ids.index(MORE[0])]


def test_what_is_missing_shows_the_tree(tmp_path, root):
    with pytest.raises(
        DatasetNotFound, match=r"(?s)names of images in '.*val.txt' of VOC, got none; try this tree:\nROOT/"
    ):
        VOC2012(str(tmp_path / "nowhere"))
    with pytest.raises(DatasetNotFound, match=r"(?s)benchmark_RELEASE/dataset/train.txt'.*SegmentationClassAug"):
        VOC2012(str(root), split="trainaug")
    place = root / "VOCdevkit" / "VOC2012"
    (place / "JPEGImages" / f"{VAL[1]}.jpg").unlink()
    with pytest.raises(DatasetNotFound, match=r"expected 2 images of VOC, got none for 1, the first at '.*2008_000009"):
        VOC2012(str(root))
    (place / "SegmentationClass" / f"{TRAIN[0]}.png").unlink()
    with pytest.raises(
        DatasetNotFound, match=r"(?s)got none for 1 of 2, the first for '.*2007_000032.jpg'.*try this tree"
    ):
        VOC2012(str(root), split="train")


def test_unknown_splits_name_the_known(root):
    with pytest.raises(SpecError, match="expected a split of VOC, got 'reduced'; try 'train', 'val', 'trainaug'"):
        VOC2012(str(root), split="reduced")


def test_the_doctor_looks_at_it(root, tmp_path):
    found = examine(f"voc(root='{root}')")
    assert found.ok
    assert "Sizes, width x height: 513x513 (2)." in found.lines
    missing = examine(f"voc(root='{tmp_path}')")
    assert not missing.ok
    assert missing.lines[0].startswith("Problem: expected names of images in")


def test_the_palette_is_that_of_the_devkit():
    # VOC's own rule: bit j of the class index, three bits a time, goes to the top bits of red, green and blue.
    for index, colour in enumerate(VOC.palette):
        bits = [(index >> 3 * place & 7, 7 - place) for place in range(3)]
        assert colour == tuple(sum((b >> channel & 1) << top for b, top in bits) for channel in range(3))
