"""Run a study: train what is missing, measure what is missing, conclude. An interrupted run resumes when it is repeated.

`FOLDER/networks/ROLE` holds a trained network, `FOLDER/records.jsonl` (or a row's own place) what was measured.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.core.files import make_folder, sole_writer
from robustseg.core.types import Dataset, Network, Perturbation
from robustseg.datasets.views import Resized, Spread
from robustseg.evaluation.run import Conditions, Progress, evaluate, plan, recorded
from robustseg.studies.evidence import Evidence
from robustseg.studies.page import conclude, require_study
from robustseg.studies.study import CLEAN, Row, Study
from robustseg.studies.trainings import Trained
from robustseg.studies.verdicts import Verdict
from robustseg.training.fabric import fabric_on

SMALL = (48, 96)
"""The size of the image on which the passes of an attack are counted."""


def reproduce(
    study: Study,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[str], None] = lambda step: None,
    on_batch: Callable[[Progress], None] = lambda progress: None,
) -> list[Verdict]:
    """Run what is not there yet, then write tables, verdicts and figures.

    Args:
        study: as `study.opened` gives it. folder: of networks, records and results.
        device: where to run. on_step: told of each step. on_batch: called after every batch that is measured.

    Returns:
        The claims with their verdicts.

    Raises:
        RobustsegError: data or a network is missing, a network in the folder was trained in another way, the folder holds
            another study, or another run writes there.
    """
    with sole_writer(folder):
        require_study(study, folder)
        work = Work(study, folder, device, on_step, on_batch)
        work.train()
        for rows in passes(study):
            on_step(f"measure {_told(rows)}")
            work.measure(rows)
        for extra in study.extras:
            on_step(extra.name)
            extra.run(work)
        return conclude(study, folder)


def train(
    study: Study, folder: Path, *, device: str = "cpu", on_step: Callable[[str], None] = lambda step: None
) -> None:
    """Train what is not trained yet, and no more: several processes can do it at once, each with other networks."""
    Work(study, folder, device, on_step).train()


def costs(study: Study, folder: Path, *, device: str = "cpu") -> dict[str, float]:
    """Seconds that each step of `reproduce` will take, 0 where it is done.

    A training is judged by a few steps, a measurement by one forward pass of its source and the passes that its perturbation
    takes on a small image.
    """
    work = Work(study, folder, device)
    found, judged = dict[str, float](), dict[str, float]()
    for role, how in work.trainings():
        if how.finished(work, role):
            found[f"train {role}"] = 0.0
            continue
        if how.alike not in judged:
            judged[how.alike] = how.seconds(work, role)
        found[f"train {role}"] = judged[how.alike]
    for rows in passes(study):
        step = f"measure {'clean images' if rows[0].perturbation == CLEAN else f'attacks on {rows[0].source}'}"
        found[step] = found.get(step, 0.0) + (0.0 if work.measured(rows) else work.seconds(rows))
    return found | {extra.name: extra.seconds(work) for extra in study.extras}


def passes(study: Study) -> list[list[Row]]:
    """The rows in groups that one perturbation of the images serves: they differ in the network that is measured alone."""
    found: dict[Row, list[Row]] = {}
    for row in dict.fromkeys(study.rows):
        alike = replace(row, source="" if row.perturbation == CLEAN else row.source, target="")
        found.setdefault(alike, []).append(row)
    return list(found.values())


def _told(rows: list[Row]) -> str:
    """How a pass is told of."""
    first, networks = rows[0], f"{len(rows)} network{'s' * (len(rows) > 1)}"
    against = "" if first.perturbation == CLEAN else f" against {first.source}"
    return f"{networks} on {first.images}: {first.perturbation}{against}"


class Work:
    """The networks and images of one run, built when they are needed.

    Args:
        study: what is run. folder: of networks and records. device: where to run.
        on_step: told of each step. on_batch: called after every batch.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        device: str = "cpu",
        on_step: Callable[[str], None] = lambda step: None,
        on_batch: Callable[[Progress], None] = lambda progress: None,
    ):
        self.study, self.folder, self.device = study, make_folder(folder), device
        self.on_step, self.on_batch = on_step, on_batch
        self._networks: dict[str, Network] = {}
        self._counted: dict[tuple[str, str], int] = {}
        self._timed: dict[str, float] = {}

    def evidence(self) -> Evidence:
        """What is measured by now."""
        return Evidence.read(self.study, self.folder, torn=True)

    def home(self, role: str) -> Path:
        """The folder of a network that the study trains."""
        return self.folder / "networks" / role

    def fabric(self) -> Fabric:
        """One process on the device of the run, with the study's precision of training."""
        return fabric_on(self.device, self.study.precision)

    def told(self, what: str, who: str, done: int, total: int) -> None:
        """Report progress of an extra step."""
        self.on_batch(Progress(what, who, done, total))

    def data(self, name: str) -> Dataset:
        """Images by their name.

        Raises:
            RobustsegError: the study does not spell their spec as records do.
        """
        images = self.study.images[name]
        data = api.data(images.data)
        _require_spelling(images.data, data.spec)
        for count in images.counts:
            data = Spread(data, count)
        return Resized(data, images.size) if images.size else data

    def network(self, role: str) -> Network:
        """A network by its role; before it is trained one as fast stands in, to judge costs by.

        Raises:
            RobustsegError: the study does not spell its spec as records do.
        """
        if role not in self._networks:
            # only what is fitted on records needs them
            known = self.evidence() if callable(self.study.networks.get(role)) else Evidence(self.study, ())
            spec, text = known.spec(role, self.folder), self._buildable(role)
            built = api.network(text)
            if text == spec:
                _require_spelling(spec, built.spec)
            built.spec = spec
            self._networks[role] = built.to(self.device)
        return self._networks[role]

    def _buildable(self, role: str) -> str:
        """The spec of a network, with a stand-in in the place of what is not trained."""
        given = self.study.networks[role]
        if callable(given):
            given = given(self.evidence())
        if not isinstance(given, str):
            path = self.home(role) / given.file
            given = f"weights({str(path)!r})" if path.is_file() else given.stand_in
        return re.sub(r"{([^{}]+)}", lambda name: self._buildable(name[1]), given)

    def trainings(self) -> Iterator[tuple[str, Trained]]:
        """The trainings that the rows need, in order."""
        wanted = {role for row in self.study.rows for role in (row.source, row.target)}
        for role in tuple(wanted):
            given = self.study.networks[role]
            wanted |= set(re.findall(r"{([^{}]+)}", given)) if isinstance(given, str) else set()
        for role, given in self.study.networks.items():
            if role in wanted and not isinstance(given, str) and not callable(given):
                yield role, given

    def train(self) -> None:
        """Train what is not trained yet."""
        for role, how in self.trainings():
            if not how.finished(self, role):
                self.on_step(f"train {role}")
                how.train(self, role)
                self._networks.clear()  # stand-ins

    def measure(self, rows: list[Row]) -> None:
        """Measure the rows of one pass that are not recorded yet."""
        evaluate(*self._pass(rows), panels=0, on_batch=self.on_batch, **self._kept(rows))

    def measured(self, rows: list[Row]) -> bool:
        """Whether `measure` has nothing to do."""
        return recorded(*self._pass(rows), **self._kept(rows))

    def _pass(self, rows: list[Row]) -> tuple[list[Network], Dataset, Perturbation | None, Network | None]:
        """What one pass measures: the networks, the images, the perturbation and its source."""
        first = rows[0]
        attack, source = None, None
        if first.perturbation != CLEAN:
            attack, source = api.perturbation(first.perturbation), self.network(first.source)
            _require_spelling(first.perturbation, attack.spec)
        return [self.network(row.target) for row in rows], self.data(first.images), attack, source

    def _kept(self, rows: list[Row]) -> dict[str, Any]:
        """Under which conditions a pass is measured, and where it is kept."""
        first = rows[0]
        conditions = Conditions(first.seed, self.study.batch_size, first.precision)
        return {"conditions": conditions, "folder": self.folder / first.place}

    def seconds(self, rows: list[Row]) -> float:
        """Seconds that a pass will take."""
        first, data = rows[0], self.data(rows[0].images)
        own = self._passes(first) if first.perturbation != CLEAN else 0
        time = self._pass_time(first.source, data)
        return len(data) * (own + 2 * len(rows)) * time

    def _passes(self, row: Row) -> int:
        """Forward passes that a perturbation takes on an image, where a backward pass counts as two."""
        key = row.source, row.perturbation
        if key not in self._counted:
            small = Resized(Spread(self.data(row.images), 1), SMALL)
            source, attack = self.network(row.source), api.perturbation(row.perturbation)
            (cost,) = plan([source], small, attack, source, conditions=Conditions(batch_size=1))
            self._counted[key] = cost.forwards + 2 * cost.backwards
        return self._counted[key]

    def _pass_time(self, role: str, data: Dataset) -> float:
        """Seconds of one forward pass on one image, judged by an attack of one step."""
        if role not in self._timed:
            source, step = self.network(role), api.perturbation("fgsm(budget='linf:1/255')")
            (cost,) = plan([source], Spread(data, 1), step, source, conditions=Conditions(batch_size=1))
            self._timed[role] = cost.seconds / (cost.forwards + 2 * cost.backwards)
        return self._timed[role]


def _require_spelling(given: str, wanted: str) -> None:
    if given != wanted:
        raise RobustsegError(f'expected specs of a study as records spell them, got "{given}"; try "{wanted}"')
