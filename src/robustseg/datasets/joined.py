"""Several data sets one after another, as one."""

from bisect import bisect_right
from itertools import accumulate
from typing import Any

from robustseg.core.errors import SpecError
from robustseg.core.registry import dataset
from robustseg.core.types import Dataset, Sample


@dataset("joined")
class Joined(Dataset):
    """Several data sets of one label space, one after another: `joined(camvid(root='…'), frames('drive.mp4'))`.

    Ids stay, but for one that an earlier part has: `1:ID` in part 1 (parts count from 0).

    Raises:
        SpecError: no part is given, or one is no data set. LabelSpaceMismatch: two parts differ.
    """

    def __init__(self, *parts: Any):
        if not parts or not all(isinstance(part, Dataset) for part in parts):
            raise SpecError(f"expected data sets to join, got {parts!r}; try joined(frames('a.mp4'), frames('b.mp4'))")
        self.label_space = parts[0].label_space
        for part in parts[1:]:
            self.label_space.require_same(part.label_space, mine=parts[0].spec, theirs=part.spec)
        self.spec = f"joined({', '.join(part.spec for part in parts)})"
        self.files = tuple(file for part in parts for file in part.files)
        self._parts: tuple[Dataset, ...] = parts
        self._starts = list(accumulate((len(part) for part in parts), initial=0))
        ids: dict[str, None] = {}
        for number, part in enumerate(parts):
            for name in part.ids:
                while name in ids:
                    name = f"{number}:{name}"
                ids[name] = None
        self.ids = tuple(ids)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        part, place = self._place(index)
        sample = part[place]
        return Sample(sample.image, sample.labels, self.ids[index], sample.extras)

    def fingerprint(self, index: int) -> str:
        """That of the sample in its part."""
        part, place = self._place(index)
        return part.fingerprint(place)

    def _place(self, index: int) -> tuple[Dataset, int]:
        part = bisect_right(self._starts, index) - 1
        return self._parts[part], index - self._starts[part]
