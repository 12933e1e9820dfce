"""Any folder of images and masks, with class lists of every form."""

import json

import pytest

import trees
from robustseg.core import registry
from robustseg.core.errors import DatasetNotFound, RobustsegError, ShapeError, SpecError
from robustseg.core.spaces import CAMVID
from robustseg.datasets import batches
from robustseg.datasets.folder import Folder
from robustseg.evaluation.run import evaluate
from robustseg.testing import PixelNetwork, check_dataset

CLASSES = ("road", "car", "sky")


@pytest.fixture
def root(tmp_path):
    return trees.folder(tmp_path, {"b.jpg": (6, 8), "a.png": (6, 8), "c.PNG": (9, 5)})


def opened(root, **arguments):
    return Folder(images=str(root / "images"), labels=str(root / "labels"), **{"classes": CLASSES, **arguments})


def test_images_of_different_sizes_conform_and_batch(root):
    data = opened(root)
    check_dataset(data)
    assert data.ids == ("a", "b", "c")
    assert [b.ids for b in batches(data, 4)] == [("a", "b"), ("c",)]
    assert data.label_space.names == CLASSES


def test_class_lists_of_every_form_mean_the_same(root):
    (root / "classes.txt").write_text("road\ncar\n\nsky\n")
    (root / "classes.json").write_text(json.dumps(list(CLASSES)))
    palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    (root / "full.json").write_text(json.dumps({"names": CLASSES, "palette": palette}))
    for name in ("classes.txt", "classes.json", "full.json"):
        data = opened(root, classes=str(root / name))
        assert data.label_space.names == CLASSES
        assert data.files == (root / name,)
        assert registry.build("data", data.spec).label_space == data.label_space
    assert data.label_space.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert opened(root, classes=3).label_space.names == ("class 0", "class 1", "class 2")
    assert opened(root, classes="camvid").label_space == CAMVID


def test_the_spec_rebuilds(root):
    data = opened(root, void=(2, 255))
    assert data.spec.endswith("classes=('road', 'car', 'sky'), void=(2, 255))")
    again = registry.build("data", data.spec)
    assert (again.spec, again.ids, again.label_space) == (data.spec, data.ids, data.label_space)
    assert again[0].labels.unique().tolist() == [0, 1, 255]
    assert opened(root, classes="camvid").spec.endswith("classes='camvid')")


def test_void_must_leave_a_class(root):
    with pytest.raises(SpecError, match=r"expected a class that is not void, got void=\(0, 1, 2\); try another void"):
        opened(root, void=(0, 1, 2))


@pytest.mark.parametrize("void", [256, (-1,), (300, 255)])
def test_void_must_be_values_of_a_mask(root, void):
    with pytest.raises(SpecError, match=r"expected void as values 0 to 255, got .*; try void=\(255,\)"):
        opened(root, void=void)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"expected a class list at '.*', got no such file; try classes=\('road', 'car'\)"),
        ("", "expected one class name a line, or JSON with a list of names, in '.*', got '.*'; try"),
        ('{"classes": 3}', "expected one class name a line, or JSON"),
        ("[1, 2]", "expected one class name a line, or JSON"),
        ('["road"', "expected one class name a line, or JSON"),
        ('{"names": ["road"], "palette": [[1, 2]]}', "expected one class name a line, or JSON"),
    ],
)
def test_bad_class_files_are_named(root, text, sentence):
    path = root / "classes.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=sentence):
        opened(root, classes=str(path))


def test_unknown_class_lists_name_the_known(root):
    with pytest.raises(SpecError, match=r"expected a known label space, got 'camvit'; try camvid"):
        opened(root, classes="camvit")


def test_missing_folders_show_the_tree(root):
    with pytest.raises(
        DatasetNotFound, match=r"(?s)the folder '.*none' of .*, got none; try this tree:\nIMAGES/.*LABELS/"
    ):
        Folder(images=str(root / "none"), labels=str(root / "labels"), classes=CLASSES)
    (root / "labels" / "b.png").unlink()
    with pytest.raises(DatasetNotFound, match=r"none for 1 of 3, the first for '.*b\.jpg' at '.*labels/b\.png'; try"):
        opened(root)


def test_needed_arguments_are_said():
    with pytest.raises(SpecError, match=r"expected all needed arguments in 'folder\(images='x'\)'.*labels"):
        registry.build("data", "folder(images='x')")


def test_spoiled_masks_are_named_when_read(root):
    data = opened(root, classes=("road", "car"))
    with pytest.raises(RobustsegError, match=r"values 0 to 1 or void in '.*a\.png', got 2; try"):
        data[0]
    trees.write_mask(root / "labels" / "c.png", [0], (5, 8))
    with pytest.raises(ShapeError, match=r"size 5x9 in '.*c\.png', got 8x5; try"):
        data[2]


BINARY = ("background", "object")


def binary(root, pixels, **arguments):
    """A data set of two classes, its masks repeating `pixels`."""
    for name in "abc":
        trees.write_mask(root / "labels" / f"{name}.png", pixels, (9, 5) if name == "c" else (6, 8))
    return opened(root, **{"classes": BINARY, **arguments})


@pytest.mark.parametrize("values", [[0, 255], [255]])
@pytest.mark.parametrize("classes", [BINARY, 1, 2])
def test_255_without_a_1_is_not_taken_for_void_of_two_classes(root, values, classes):
    data = binary(root, values, classes=classes)
    with pytest.raises(
        RobustsegError, match=r"expected to know what 255 means in .*try values=\(0, 255\) .* or void=255"
    ):
        data[0]


def test_the_owner_says_what_255_means(root):
    data = binary(root, [0, 255, 0, 0], values=(0, 255))
    assert data[0].labels.unique().tolist() == [0, 1]
    assert data.spec.endswith("values=(0, 255))")
    assert registry.build("data", data.spec)[0].labels.float().mean() == 0.25
    data = binary(root, [0, 255], void=255)
    assert data[0].labels.unique().tolist() == [0, 255]
    assert registry.build("data", data.spec)[0].labels.unique().tolist() == [0, 255]
    assert binary(root, [0, 1, 255])[0].labels.unique().tolist() == [0, 1, 255]
    assert binary(root, [0])[0].labels.unique().tolist() == [0]
    data = binary(root, [10, 30, 20, 0], classes=("x", "y", "z"), values=(10, 20, 30), void=0)
    assert data[0].labels[0, :4].tolist() == [0, 2, 1, 255]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"values": (0,)}, "expected one value for each of 2 classes"),
        ({"values": (0, 0)}, "expected one value for each of 2 classes"),
        ({"values": (0, 256)}, "expected values as values 0 to 255"),
        ({"values": (0, 255), "void": 255}, "got 255 as both"),
    ],
)
def test_values_of_classes_must_tell_them_apart(root, arguments, sentence):
    with pytest.raises(SpecError, match=sentence):
        binary(root, [0], **arguments)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("name", ["classes.txt", "classes.json"])
def test_class_files_of_any_unicode_editor_mean_the_same(root, name, encoding):
    text = json.dumps([" road", "car ", "sky"]) if name.endswith("json") else "road \r\n\r\n\tcar\r\nsky\r\n\r\n"
    (root / name).write_bytes(text.encode(encoding))
    assert opened(root, classes=str(root / name)).label_space.names == CLASSES


@pytest.mark.parametrize("text", ['["road", "car", "road"]', '["road", "", "car"]'])
def test_classes_need_names_that_differ(root, text):
    (root / "classes.json").write_text(text)
    with pytest.raises(
        RobustsegError, match=r"expected a name of its own for each class, got .*; try|more than once; try"
    ):
        opened(root, classes=str(root / "classes.json"))


def test_hidden_files_are_no_images(root):
    for name in ("._a.png", ".DS_Store", "Thumbs.db", ".a.jpg"):
        (root / "images" / name).write_bytes(b"\0\5\x16\7")
        (root / "labels" / name).write_bytes(b"\0\5\x16\7")
    assert opened(root).ids == ("a", "b", "c")
    assert len(registry.build("data", f"frames({str(root / 'images')!r})")) == 3
    assert len(registry.build("data", f"frames({str(root / 'images' / '*')!r})")) == 3


def test_files_that_do_not_fit_stop_a_run_before_it_measures(root, tmp_path):
    class Untouched(PixelNetwork):
        def forward(self, images):
            raise AssertionError("measured")

    trees.write_mask(root / "labels" / "c.png", [0], (3, 5))
    network = Untouched()
    network.label_space = opened(root).label_space
    with pytest.raises(ShapeError, match=r"image's size 5x9 in '.*c\.png', got 5x3; try"):
        evaluate(network, opened(root), folder=tmp_path / "run")
    assert not list((tmp_path / "run").glob("*"))
