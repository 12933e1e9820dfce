"""Cityscapes in its official tree, on a fake tree and on real frames."""

import numpy as np
import pytest

import trees
from robustseg.core import registry
from robustseg.core.errors import DatasetNotFound, RobustsegError, SpecError
from robustseg.datasets.cityscapes import Cityscapes
from robustseg.testing import check_dataset

VAL = ["frankfurt_000000_000294", "lindau_000001_000019", "munster_000002_000019", "lindau_000000_000019"]


@pytest.fixture
def root(tmp_path):
    return trees.cityscapes(tmp_path / "cityscapes", {"train": ["aachen_000000_000019"], "val": VAL})


def test_a_split_conforms_and_is_read_by_id(root):
    data = Cityscapes(str(root), split="val")
    check_dataset(data)
    assert data.ids == tuple(sorted(VAL))
    assert data.label_space.names[18] == "bicycle"
    assert Cityscapes(str(root), split="train").ids == ("aachen_000000_000019",)


def test_label_ids_become_the_19_train_ids(root):
    # Cordts et al. 2016, Table of classes: road is 7, sidewalk 8, building 11, ..., bicycle 33; the others void
    expected = np.full(34, 255)
    expected[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = range(19)
    labels = Cityscapes(str(root))[0].labels.flatten()
    assert labels[:34].tolist() == expected.tolist()


def test_label_train_ids_are_read_where_there_are_no_label_ids(tmp_path):
    trees.cityscapes(tmp_path, {"val": VAL[:1]}, kind="labelTrainIds", suffix="jpg")
    data = Cityscapes(str(tmp_path))
    assert data[0].labels.flatten()[:20].tolist() == [*range(19), 255]
    trees.cityscapes(tmp_path, {"val": VAL[:1]}, kind="labelIds", suffix="jpg")
    assert Cityscapes(str(tmp_path))[0].labels.flatten()[7] == 0


def test_cities_of_val_are_splits(root):
    assert Cityscapes(str(root), split="lindau").ids == ("lindau_000000_000019", "lindau_000001_000019")
    both = Cityscapes(str(root), split="frankfurt+munster")
    assert both.ids == ("frankfurt_000000_000294", "munster_000002_000019")
    again = registry.build("data", both.spec)
    assert (again.spec, again.ids) == (both.spec, both.ids)


def test_a_missing_folder_shows_the_tree(tmp_path, root):
    wanted = r"(?s)'.*leftImg8bit/val' of Cityscapes, got none; try this tree:\nROOT/.*gtFine/.*labelTrainIds"
    with pytest.raises(DatasetNotFound, match=wanted):
        Cityscapes(str(tmp_path / "nowhere"))
    (root / "gtFine").rename(root / "gtCoarse")
    with pytest.raises(DatasetNotFound, match=r"'.*gtFine/val' of Cityscapes, got none; try this tree"):
        Cityscapes(str(root))


def test_a_missing_city_an_empty_split_and_a_missing_mask(tmp_path, root):
    (root / "leftImg8bit" / "val" / "munster").rename(tmp_path / "away")
    with pytest.raises(DatasetNotFound, match=r"expected the city 'munster' in '.*val', got none; try this tree"):
        Cityscapes(str(root), split="frankfurt+munster")
    mask = root / "gtFine" / "val" / "lindau" / "lindau_000001_000019_gtFine_labelIds.png"
    mask.unlink()
    with pytest.raises(
        DatasetNotFound, match=r"none for 1 of 3, the first for '.*lindau_000001_000019_leftImg8bit\.png'"
    ):
        Cityscapes(str(root))
    for path in (root / "leftImg8bit" / "train").rglob("*.png"):
        path.unlink()
    with pytest.raises(DatasetNotFound, match=r"expected images in the cities of '.*train', got none; try this tree"):
        Cityscapes(str(root), split="train")


def test_unknown_splits_name_the_known(root):
    with pytest.raises(
        SpecError, match=r"expected a split of Cityscapes, got 'test2'; try 'train', .*'frankfurt\+munster'"
    ):
        Cityscapes(str(root), split="test2")


def test_a_value_that_is_no_label_id_is_named(root):
    data = Cityscapes(str(root), split="train")
    trees.write_mask(root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", [7, 34])
    with pytest.raises(RobustsegError, match=r"values 7 to 33 or void in '.*aachen_000000_000019.*', got 34; try"):
        data[0]


def test_real_frames(shared_data):
    root = str(shared_data / "cityscapes_sample")
    assert Cityscapes(root, split="train").ids[0] == "aachen_000000_000019"
    data = Cityscapes(root, split="val")
    for sample in (data[0], data[1]):  # one has labelIds, the other only labelTrainIds
        assert sample.image.shape == (3, 1024, 2048)
        assert 0.05 < float((sample.labels == 0).double().mean()) < 0.6  # road
        assert float((sample.labels == 255).double().mean()) < 0.2
