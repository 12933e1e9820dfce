"""Joined data sets: every sample of every part, in order, with ids that stay unique."""

import pytest
import torch

from robustseg.core import registry
from robustseg.core.errors import LabelSpaceMismatch, SpecError
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.joined import Joined
from robustseg.testing import check_dataset, gray_space


class Level(Dataset):
    """Images of one gray level."""

    def __init__(self, ids, level, classes=4):
        self.spec, self.ids, self.level, self.label_space = f"level{level}", tuple(ids), level, gray_space(classes)
        self.files = (level,)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        extras = {"next": torch.zeros(3, 2, 2)}
        return Sample(
            torch.full((3, 2, 2), self.level / 10), torch.zeros(2, 2, dtype=torch.int64), self.ids[index], extras
        )


def test_every_sample_of_every_part_in_order():
    data = Joined(Level("ab", 1), Level("", 2), Level("bcb", 3))
    check_dataset(data, samples=5)
    assert data.ids == ("a", "b", "2:b", "c", "2:2:b")
    assert [round(float(data[i].image[0, 0, 0]) * 10) for i in range(5)] == [1, 1, 3, 3, 3]
    assert data[4].id == "2:2:b"
    assert "next" in data[0].extras
    assert data.files == (1, 2, 3)


def test_the_spec_nests():
    data = registry.build("data", "joined(streets(scenes=1), joined(streets(scenes=2)))")
    assert data.spec == "joined(streets(scenes=1), joined(streets(scenes=2)))"
    assert len(data) == len(registry.build("data", "streets(scenes=1)")) + len(
        registry.build("data", "streets(scenes=2)")
    )


def test_what_does_not_join_is_one_sentence():
    with pytest.raises(LabelSpaceMismatch, match="level1 and 5 in level2"):
        Joined(Level("a", 1), Level("b", 2, classes=5))
    for parts in ((), ("a path",)):
        with pytest.raises(SpecError, match="expected data sets to join"):
            Joined(*parts)
    with pytest.raises(SpecError, match="expected data sets to join"):
        registry.build("data", "joined('a')")
