"""The records of a study by role: which network, on which images, under which perturbation made against which network. No torch."""

import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustseg.core.errors import RobustsegError
from robustseg.results import metrics
from robustseg.results.current import current
from robustseg.results.record import Record, record_lines
from robustseg.studies.measures import Measure, read_measures
from robustseg.studies.study import CLEAN, Row, Study


@functools.lru_cache(maxsize=4096)
def portable(spec: str) -> str:
    """A spec of a network or of data without the folders that differ from machine to machine.

    Of every quoted path what follows `networks/` is kept, or else its last part.
    """
    return re.sub(r"'([^']*)'", _short, spec.replace("\\\\", "/"))


def _short(quoted: re.Match[str]) -> str:
    trained = re.fullmatch(r"(?:.*/)?(networks/.*)", quoted[1])
    return f"'{trained[1] if trained else quoted[1].rpartition('/')[2]}'"


class Evidence:
    """What was measured for a study. Figures are ratios in [0, 1], NaN where nothing was measured.

    Args:
        study: names the roles. records, measures: of its folder. folder: the folder itself, for what only one paper reads there.
    """

    def __init__(
        self, study: Study, records: Sequence[Record], measures: Sequence[Measure] = (), folder: Path = Path()
    ):
        self.study, self.records, self.measures, self.folder = study, tuple(records), tuple(measures), folder
        self.settings: Any = study.settings
        self._found: dict[tuple[str, str, str, str, int], list[Record]] = {}
        self._precisions: dict[tuple[str, str, str, str, int], set[str]] = {}
        for row in study.rows:
            of = row.source, row.target, row.images, row.perturbation, row.seed
            self._precisions.setdefault(of, set()).add(row.precision)
        fixed = [role for role, given in study.networks.items() if not callable(given)]
        self._sort(fixed)
        if len(fixed) < len(study.networks):  # what is fitted is fitted on the records of the others
            self._sort(list(study.networks))

    @classmethod
    def read(cls, study: Study, folder: Path, *, torn: bool = False) -> "Evidence":
        """The evidence in a study's folder, which may be empty; `torn` as for `record_lines`."""
        places = [folder / place for place in dict.fromkeys(row.place for row in study.rows)]
        files = [file for place in places if (file := place / "records.jsonl").is_file()]
        records = [record for file in files for record in current(list(record_lines(file, torn=torn)))]
        kept = dict.fromkeys([*places, *(folder / getattr(extra, "place", "") for extra in study.extras)])
        return cls(study, records, [m for place in kept for m in read_measures(place)], folder)

    def spec(self, role: str, folder: Path | None = None) -> str:
        """The spec of a network by its role, as records spell it; trained ones lie in `folder`.

        Raises:
            RobustsegError: the study has no such role.
        """
        if role not in self.study.networks:
            raise RobustsegError(f"expected a network of the study, got '{role}'; try {', '.join(self.study.networks)}")
        given = self.study.networks[role]
        if callable(given):
            given = given(self)
        if isinstance(given, str):
            return re.sub(r"{([^{}]+)}", lambda name: self.spec(name[1], folder), given)
        return f"weights({str((folder or Path()) / 'networks' / role / given.file)!r})"

    def _sort(self, roles: Sequence[str]) -> None:
        exact = {self.spec(role, self.folder): role for role in roles}
        alike: dict[str, list[str]] = {}
        for role in roles:
            alike.setdefault(portable(self.spec(role)), []).append(role)
        # Two networks that differ in their folder alone are told apart on this machine only.
        moved = {spec: own[0] for spec, own in alike.items() if len(own) == 1}
        self._found.clear()
        for r in self.records:
            source, target = (exact.get(s) or moved.get(portable(s)) for s in (r.source, r.network))
            if source is not None and target is not None:
                key = source, target, portable(r.data), r.perturbation, r.seed
                self._found.setdefault(key, []).append(r)

    def all(self, row: Row) -> list[Record]:
        """The records of a row, the latest last."""
        most = min(self.study.images[row.images].counts, default=math.inf)
        found = [r for r in self._of_size(row) if len(r.ids) <= most]
        whole = max((len(r.ids) for r in found), default=0)
        return [r for r in found if len(r.ids) == whole]

    def _of_size(self, row: Row) -> list[Record]:
        """The records of a row, and those like it over more or fewer images of the same data and size.

        Where the study has the row, in the precision in which it measures it.
        """
        images = self.study.images[row.images]
        key = row.source, row.target, portable(images.data), row.perturbation, row.seed
        asked = self._precisions.get((row.source, row.target, row.images, row.perturbation, row.seed))
        found = [r for r in self._found.get(key, []) if images.size in (None, r.size)]
        return [r for r in found if asked is None or r.precision in asked]

    def record(
        self, target: str, perturbation: str = CLEAN, *, source: str = "", images: str = "report", seed: int = 0
    ) -> Record | None:
        """The record of a network under a perturbation that is made against `source`, by default the network itself."""
        found = self.all(Row(source or target, target, images, perturbation, seed))
        return found[-1] if found else None

    def miou(
        self,
        target: str,
        perturbation: str = CLEAN,
        *,
        source: str = "",
        images: str = "report",
        seed: int = 0,
        over: Sequence[int] | None = None,
    ) -> float:
        """Pooled mIoU, over all images or over those at some positions."""
        found = self.record(target, perturbation, source=source, images=images, seed=seed)
        return metrics.miou(found.counts, over) if found else math.nan

    def ratio(
        self, target: str, perturbation: str, *, source: str = "", images: str = "report", seed: int = 0
    ) -> float:
        """mIoU under a perturbation over clean mIoU on the same images."""
        found = self.record(target, perturbation, source=source, images=images, seed=seed)
        for clean in reversed(self._of_size(Row(target, target, images))) if found else ():
            place = {name: i for i, name in enumerate(clean.ids)}
            if found and all(name in place for name in found.ids):
                below = metrics.miou(clean.counts, [place[name] for name in found.ids])
                return metrics.miou(found.counts) / below if below > 0 else math.nan
        return math.nan

    def by_seed(self, group: str, value: Callable[[str], float]) -> list[float]:
        """A value of each network of a group that has one, in order of seeds; a group without seeds is one network."""
        values = (value(role) for role in self.study.seeds.get(group, (group,)) if role in self.study.networks)
        return [v for v in values if not math.isnan(v)]

    def gains(self, above: str, below: str, value: Callable[[str], float]) -> list[float]:
        """The value of one group less that of another, seed by seed, where both have one."""
        pairs = zip(*(self.study.seeds.get(group, (group,)) for group in (above, below)), strict=False)
        return [gain for a, b in pairs if not math.isnan(gain := value(a) - value(b))]

    def of(self, kind: str, who: str) -> list[Measure]:
        """The measures of a kind, by image."""
        return sorted((m for m in self.measures if (m.kind, m.who) == (kind, who)), key=lambda m: m.image)
