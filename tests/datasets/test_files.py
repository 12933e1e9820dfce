"""Images and masks from files: what is read, and one clear sentence for each file that cannot be used."""

import io
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from robustseg.core.errors import DatasetNotFound, RobustsegError, ShapeError
from robustseg.datasets.files import images_in, paired, read_image, read_labels, train_ids_of
from trees import write_image, write_mask


def test_an_image_is_rgb_in_zero_to_one(tmp_path):
    pixels = np.array([[[255, 0, 51], [0, 102, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.tensor([[[1.0, 0.0]], [[0.0, 0.4]], [[0.2, 0.0]]]))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_other_8_bit_images_become_rgb(tmp_path, mode):
    Image.fromarray(np.full((4, 5, 3), 255, np.uint8)).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 4, 5)
    assert (image == 1).all()


def test_labels_are_mapped_and_void_is_255(tmp_path):
    path = write_mask(tmp_path / "a.png", np.array([[0, 1, 2], [255, 9, 0]]))
    table = train_ids_of(3, void=(9, 255))
    labels = read_labels(path, table, (2, 3))
    assert labels.dtype == torch.int64
    assert labels.tolist() == [[0, 1, 2], [255, 255, 0]]


def test_masks_with_a_palette_and_of_one_bit_are_indices(tmp_path):
    values = np.array([[0, 1], [1, 0]], np.uint8)
    coloured = Image.fromarray(values)
    coloured.putpalette([200, 100, 0, 7, 7, 7])
    coloured.save(tmp_path / "p.png")
    Image.fromarray(values.astype(bool)).save(tmp_path / "b.png")
    for name in ("p.png", "b.png"):
        assert read_labels(tmp_path / name, train_ids_of(2), (2, 2)).tolist() == values.tolist()


def test_a_value_outside_the_classes_is_named(tmp_path):
    path = write_mask(tmp_path / "a.png", [0, 1, 7])
    with pytest.raises(
        RobustsegError, match=r"expected label values 0 to 2 or void in '.*a\.png', got 7; try the class"
    ):
        read_labels(path, train_ids_of(3), (6, 8))


def test_labels_of_another_size_are_refused(tmp_path):
    path = write_mask(tmp_path / "a.png", [0], (5, 8))
    with pytest.raises(ShapeError, match=r"image's size 8x6 in '.*a\.png', got 8x5; try"):
        read_labels(path, train_ids_of(3), (6, 8))


def test_coloured_masks_are_refused(tmp_path):
    path = write_image(tmp_path / "a.png")
    with pytest.raises(RobustsegError, match=r"one class index a pixel in '.*', got 3 channels; try the index masks"):
        read_labels(path, train_ids_of(3), (6, 8))


def test_16_bit_files_are_refused(tmp_path):
    Image.fromarray(np.full((6, 8), 2, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(RobustsegError, match=r"expected 8 bits a value in '.*', got 16; try"):
        read_labels(tmp_path / "a.png", train_ids_of(3), (6, 8))
    with pytest.raises(RobustsegError, match="got 16; try"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path, suffix, share):
    path = write_image(tmp_path / f"a.{suffix}", (40, 50))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RobustsegError, match=rf"expected a readable image in '.*a\.{suffix}', got '.*'; try copying"):
        read_image(path)


def test_no_cut_or_flipped_byte_gets_past_with_another_error(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).save(buffer, "PNG")
    whole, table = buffer.getvalue(), train_ids_of(60)
    path = tmp_path / "a.png"
    for i in range(len(whole)):
        for spoiled in (whole[:i], whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :]):
            path.write_bytes(spoiled)
            with suppress(RobustsegError):
                assert read_labels(path, table, (6, 10)).shape == (6, 10)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetNotFound, match=r"expected a file at '.*none\.png', got none; try"):
        read_image(tmp_path / "none.png")


def test_pairs_come_by_name_whatever_the_suffix(tmp_path):
    for name in ("b.jpg", "a.png", "c.PNG", "notes.txt"):
        (tmp_path / "i").mkdir(exist_ok=True)
        (tmp_path / "i" / name).touch()
        write_mask(tmp_path / "l" / f"{name[0]}.png", [0])
    pairs = paired(tmp_path / "i", tmp_path / "l", what="x", tree="TREE")
    assert list(pairs) == ["a", "b", "c"]
    assert pairs["b"] == (tmp_path / "i" / "b.jpg", tmp_path / "l" / "b.png")
    assert [p.name for p in images_in(tmp_path / "i")] == ["a.png", "b.jpg", "c.PNG"]


def test_what_cannot_be_paired_is_said(tmp_path):
    images, labels = tmp_path / "i", tmp_path / "l"
    with pytest.raises(DatasetNotFound, match=r"the folder '.*i' of x, got none; try this tree:\nTREE"):
        paired(images, labels, what="x", tree="TREE")
    images.mkdir()
    with pytest.raises(DatasetNotFound, match=r"the folder '.*l' of x, got none"):
        paired(images, labels, what="x", tree="TREE")
    labels.mkdir()
    with pytest.raises(DatasetNotFound, match=r"expected images in '.*i', got none; try this tree:\nTREE"):
        paired(images, labels, what="x", tree="TREE")
    for name in ("a.png", "b.png", "c.png"):
        write_image(images / name)
    write_mask(labels / "b.png", [0])
    with pytest.raises(DatasetNotFound, match=r"got none for 2 of 3, the first for '.*a\.png' at '.*l/a\.png'; try"):
        paired(images, labels, what="x", tree="TREE")
    write_image(images / "b.jpg")
    with pytest.raises(RobustsegError, match=r"one image a name in '.*', got 'b\.jpg' and 'b\.png'; try"):
        paired(images, labels, what="x", tree="TREE")
