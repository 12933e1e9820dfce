"""What a study measures beside records: values by image in `measures.jsonl`, and the step that fills it. Without torch."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line, make_folder, read_lines, sole_writer, write_whole
from robustseg.core.provenance import commit
from robustseg.core.schema import fields_of
from robustseg.results.record import Counts

if TYPE_CHECKING:
    from robustseg.core.types import Batch
    from robustseg.studies.run import Work
else:
    Batch = Work = Any  # torch is loaded where it is needed

FILE, FORMAT = "measures.jsonl", 2


@dataclass(frozen=True)
class Measure:
    """What was measured on one image beside the records.

    Args:
        kind: of what is measured. who: which network, or what stands beside the networks.
        image: its id; empty for what is measured once. about: what decides the values (weights, settings, data, seed).
        values: by name. counts: of the pixels, where something was labelled.
        commit: of the code.
    """

    kind: str
    who: str
    image: str
    about: dict[str, Any]
    values: dict[str, float]
    counts: Counts | None = None
    commit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes null when it is written."""
        return {
            "format": FORMAT,
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "counts": self.counts and self.counts.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Measure":
        """The inverse of `to_json` after JSON.

        Raises:
            RobustsegError: it is something else.
        """
        if data.get("format", FORMAT) != FORMAT:
            raise RobustsegError(
                f"expected measures of format {FORMAT}, got others; try the robustseg version that wrote them"
            )
        return cls(**fields_of(cls, data, required=[field.name for field in fields(cls)]))


def read_measures(folder: Path) -> list[Measure]:
    """The measures of a folder, of each kind, network and image the latest; none where there is no file."""
    path = folder / FILE
    # measures of earlier versions have neither a format nor a digest
    found = read_lines(path, Measure.from_json, unsealed=lambda data: "format" not in data) if path.is_file() else ()
    return list({(m.kind, m.who, m.image): m for m in found}.values())


@dataclass(frozen=True)
class Measuring:
    """An `Extra` that keeps `Measure`s: what is there with the same `about` is not measured again.

    Args:
        kind, who: of the measures.
        about: what decides the values, as plain data; of the running work.
        make: the measures of a batch, or of everything where `images` is empty.
        images: name of the study's images, measured batch by batch; empty measures once.
        place: subfolder of the study's folder for `measures.jsonl`.
    """

    kind: str
    who: str
    about: Callable[[Work], dict[str, Any]]
    make: Callable[[Work, Batch | None], Sequence[Measure]]
    images: str = ""
    place: str = ""

    @property
    def name(self) -> str:
        """How the step is called."""
        return f"{self.kind}: {self.who}"

    def run(self, work: Work) -> None:
        """Measure what is missing, and keep each batch at once."""
        from robustseg.datasets.views import batches

        about = self._about(work)
        if not self.images:
            if not self._known(work, about):
                self._keep(work, self.make(work, None), about)
            return
        data, done = work.data(self.images), 0
        for batch in batches(data, work.study.batch_size):
            if not set(batch.ids) <= self._known(work, about):
                self._keep(work, self.make(work, batch.to(work.device)), about)
            done += len(batch.ids)
            work.told(self.name, self.who, done, len(data))

    def seconds(self, work: Work) -> float:
        """Seconds, judged by one image; 0 where all is there, and for what is measured once."""
        from robustseg.datasets.views import batches

        known = self._known(work, self._about(work))
        if not self.images or set(work.data(self.images).ids) <= known:
            return 0.0
        data, start = work.data(self.images), time.perf_counter()
        self.make(work, next(batches(data, 1)).to(work.device))
        return (time.perf_counter() - start) * len(data)

    def _about(self, work: Work) -> dict[str, Any]:
        """What decides the values, with the step itself where it measures once, else with the images and masks that it reads."""
        from robustseg.datasets.views import content

        own = {"content": content(work.data(self.images)).digest} if self.images else {"step": self.name}
        plain: dict[str, Any] = json.loads(json.dumps({**self.about(work), **own}))
        return plain

    def _known(self, work: Work, about: dict[str, Any]) -> set[str]:
        """The images that are measured with the same `about`; of what is measured once, what it is measured of."""
        there = [m for m in read_measures(work.folder / self.place) if m.about == about]
        return {m.image for m in there if not self.images or (m.kind, m.who) == (self.kind, self.who)}

    def _keep(self, work: Work, found: Sequence[Measure], about: dict[str, Any]) -> None:
        folder = make_folder(work.folder / self.place)
        with sole_writer(folder):
            path = folder / FILE
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            lines = [json_line(replace(m, about=about, commit=commit()).to_json()) for m in found]
            write_whole(path, before + "".join(lines))
