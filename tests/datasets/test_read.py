"""Data sets of users: what one raises or gives wrong is one sentence with the fix, before anything is counted."""

import pytest
import torch

from robustseg.core.errors import RobustsegError
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.views import Resized, batches, content, read, require_size
from robustseg.evaluation.run import evaluate
from robustseg.testing import SmallNetwork, gray_space

IMAGE, LABELS = torch.rand(3, 8, 10), torch.zeros(8, 10, dtype=torch.int64)


class Own(Dataset):
    """A data set of one sample, made by a function."""

    spec, label_space = "own", gray_space(4)

    def __init__(self, make, ids=("a",)):
        self.make, self.ids = make, ids

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.make()


def raising():
    raise KeyError("label_path")


def missing():
    raise FileNotFoundError("no file 'a.png'")


def made(image, labels, name):
    """A sample whose types nobody has checked, as outside of tests."""
    sample = object.__new__(Sample)
    sample.__dict__.update(image=image, labels=labels, id=name, extras={})
    return sample


WRONG = {
    "raises": (raising, "sample 0 of own, got KeyError: 'label_path'; try reading that file alone"),
    "missing": (missing, "sample 0 of own, got FileNotFoundError: no file 'a.png'"),
    "tuple": (lambda: (IMAGE, LABELS), "a Sample in sample 0 of own, got a tuple; try returning"),
    "none": (lambda: None, "got a NoneType"),
    "numpy": (lambda: made(IMAGE.numpy(), LABELS, "a"), r"got a ndarray float32 \[3, 8, 10\]; try torch.from_numpy"),
    "hwc": (
        lambda: made(IMAGE.permute(1, 2, 0), LABELS, "a"),
        r"image \[3, h, w\] .* got a float32 tensor \[8, 10, 3\]",
    ),
    "uint8": (lambda: made((IMAGE * 255).byte(), LABELS, "a"), r"got a uint8 tensor \[3, 8, 10\]"),
    "0..255": (lambda: made(IMAGE * 255, LABELS, "a"), r"an image in \[0, 1\] .*; try image / 255"),
    "normalised": (lambda: made((IMAGE - 0.5) / 0.2, LABELS, "a"), r"an image in \[0, 1\]"),
    "nan": (lambda: made(IMAGE * torch.nan, LABELS, "a"), "got values from nan to nan"),
    "gray": (lambda: made(IMAGE[:1], LABELS, "a"), r"got a float32 tensor \[1, 8, 10\]"),
    "empty": (lambda: made(IMAGE[:, :0], LABELS[:0], "a"), "an image with pixels"),
    "float labels": (lambda: made(IMAGE, LABELS.float(), "a"), r"int64 labels \(8, 10\) .* got a float32 tensor"),
    "uint8 labels": (lambda: made(IMAGE, LABELS.byte(), "a"), r"got a uint8 tensor \[8, 10\]; try .*long\(\)"),
    "numpy labels": (lambda: made(IMAGE, LABELS.numpy(), "a"), "got a ndarray int64"),
    "smaller labels": (
        lambda: made(IMAGE, LABELS[:4], "a"),
        r"int64 labels \(8, 10\) .* got a int64 tensor \[4, 10\]",
    ),
    "one-hot labels": (lambda: made(IMAGE, LABELS[None], "a"), r"got a int64 tensor \[1, 8, 10\]"),
    "class 4": (lambda: made(IMAGE, LABELS + 4, "a"), "labels 0 to 3, or 255 for void, in sample 0 of own, got 4"),
    "class -1": (lambda: made(IMAGE, LABELS - 1, "a"), "got -1"),
    "another id": (lambda: made(IMAGE, LABELS, "b"), "the id 'a' in sample 0 of own, got 'b'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_sample_that_breaks_the_contract_is_one_sentence(wrong):
    make, said = WRONG[wrong]
    data = Own(make)
    for reading in (
        lambda: read(data, 0),
        lambda: read(Resized(data, (8, 8)), 0),
        lambda: list(batches(data, 2)),
        lambda: evaluate(SmallNetwork().float(), data),
    ):
        with pytest.raises(RobustsegError, match=said.replace(", in sample", ".* in sample")):
            reading()


@pytest.mark.parametrize(
    ("ids", "said"),
    [((0,), "got a int, 0; try str"), (("a", "b"), "got 2 for 1"), ((), "got 0 for 1"), (None, "got TypeError")],
)
def test_ids_are_unique_texts(ids, said):
    data = Own(lambda: Sample(IMAGE, LABELS, "a"), ids)
    for reading in (lambda: list(batches(data, 2)), lambda: content(data)):
        with pytest.raises(RobustsegError, match=said):
            reading()


def test_ids_that_occur_twice_are_named():
    class Twice(Own):
        def __len__(self):
            return 2

    with pytest.raises(RobustsegError, match="unique texts, got 'a' twice"):
        list(batches(Twice(lambda: Sample(IMAGE, LABELS, "a"), ("a", "a")), 2))


def test_a_sample_that_keeps_the_contract_comes_as_it_is():
    sample = Sample(IMAGE, LABELS, "a")
    assert read(Own(lambda: sample), 0) is sample


def test_sizes_are_refused_before_anything_is_allocated():
    for size in ((1, 1), (7, 100), (0, 8), (-8, 8)):
        with pytest.raises(RobustsegError, match="at least 8x8"):
            require_size(size)
    with pytest.raises(RobustsegError, match=r"of which one needs 11,176 GiB; try"):
        Resized(Own(lambda: Sample(IMAGE, LABELS, "a")), (10**6, 10**6))
    require_size((2160, 4096))
