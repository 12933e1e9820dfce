"""Klingner et al. 2020, run: labels alone, the control, and depth from video as a second task, under noise and attack on one axis.

Every step goes on where it was cut, and what is there already is used as it is. `FOLDER/networks/NAME` holds all of one network: its
training, `records.jsonl` of what its labels keep, `measures.jsonl` of depth and poses; so several processes may work in one folder, each
at networks of its own. `FOLDER/curves.svg` is mIoU and Q of one seed on the axis of realised strength. What follows from records and
measures is in `klingner2020_evidence` and `klingner2020_claims`.

Decisions of ours, where the paper is not to be had: the control, which sees the video in batch norm alone (lambda 0); three seeds;
the sweep over lambda with one seed, but where a tier says more; ten draws of each noise, and the worst of them, as an attack is a worst case; SEA.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line, make_folder, write_whole
from robustseg.core.provenance import commit, digest
from robustseg.core.types import Dataset, Network
from robustseg.datasets.views import Resized, Spread, batches
from robustseg.evaluation.depth import RowDepth, trained_on_video
from robustseg.evaluation.run import Conditions, Progress, evaluate, plan
from robustseg.report import strength_figure
from robustseg.results.record import Record, read_records
from robustseg.studies.klingner2020_claims import findings, tables
from robustseg.studies.klingner2020_depth import judged_measures, split_measures, static_measures
from robustseg.studies.klingner2020_evidence import HELD_VIDEO, KINDS, Change, Evidence, depth_kinds, name_of
from robustseg.studies.klingner2020_tiers import Tier, tier
from robustseg.studies.legacy import Cost, Finding, Measure, made_by, read_measures, write_study
from robustseg.studies.pretraining import buildable, place_of, pretrain, untrained

TITLE = "Klingner et al. 2020: depth from video as a second task, under noise and attack"
MEASURES = 2
"""Of what is told of depth and poses: 2 adds views with poses found by aligning, and takes a known camera before a learned one."""

KNOWN = (
    "The paper's tables are not to be had, so nothing stands beside our figures; its abstract claims that the second task consistently "
    "outperforms the single one under noise and attack, and on clean images."
)


def reproduce(
    study: Tier,
    folder: Path,
    *,
    rows: Sequence[str] | None = None,
    device: str = "cpu",
    on_step: Callable[[str], None] = lambda step: None,
    on_batch: Callable[[Progress], None] = lambda progress: None,
) -> list[Finding]:
    """Run what is not there yet, then write `tables.md`, `verdicts.json` and `curves.svg`.

    Args:
        study: the tier. folder: of networks, records and measures.
        rows: names of the networks to train and measure, such as `multi-0`; None: all of the tier.
        device: where to run. on_step: told of each step. on_batch: called after every batch that is measured.

    Returns:
        The claims with their verdicts.

    Raises:
        RobustsegError: there is no such network, data is missing, or the folder holds a training under other conditions.
    """
    names, work = _chosen(study, rows), _Work(study, folder, device)
    for who in names:
        work.train(who, on_step)
        on_step(f"measure {who}: labels")
        for change in (None, *study.changes.of(who)):
            work.label(who, change, on_batch)
        if who.rpartition("-")[0] in depth_kinds(study.seeded):
            on_step(f"measure {who}: depth and poses")
            work.look(who)
    return conclude(study, folder)


def conclude(study: Tier, folder: Path) -> list[Finding]:
    """Tables, verdicts and curves from the records and measures of a folder, written there; nothing is run."""
    data = api.data(study.report).spec
    asked = {api.perturbation(c.spec).spec: c for who in study.networks for c in study.changes.of(who)}
    known: dict[str, list[Record]] = {}
    draws: dict[tuple[str, str, float], list[Record]] = {}
    measures: list[Measure] = []
    for who in study.networks:
        known[who] = [r for r in _records(folder, who) if r.data == data and (r.clean or r.perturbation in asked)]
        for record in known[who]:
            if not record.clean:
                change = asked[record.perturbation]
                draws.setdefault((who, change.family, change.strength), []).append(record)
        measures += {m.key: m for m in read_measures(_home(folder, who) / "measures.jsonl")}.values()
    clean = {who: record for who, own in known.items() for record in own if record.clean}
    everything = [record for own in known.values() for record in own]
    if not everything:
        raise RobustsegError(f"expected records in '{folder / 'networks'}', got none; try without --rows")
    found = Evidence(clean, draws, measures, study.changes, study.weight, study.weights, study.seeds, study.seeded)
    about = {
        "tier": study.name,
        "protocol": study.protocol,
        "network": study.architecture,
        "video": study.video,
        "lambda": f"{study.weight:g}",
        "the paper": KNOWN,
        **made_by(everything),
        "commits of depth and poses": ", ".join(sorted({m.commit or "unknown" for m in measures})) or "none",
    }
    claims = findings(found)
    ones = [record for kind in KINDS for record in known[name_of(kind, 0)]]
    write_whole(folder / "curves.svg", strength_figure(ones))
    write_study(folder, title=TITLE, about=about, tables=tables(found), findings=claims)
    return claims


def costs(study: Tier, folder: Path, *, rows: Sequence[str] | None = None, device: str = "cpu") -> list[Cost]:
    """What `reproduce` would take, judged by a few steps of each kind of training and by one image for each perturbation."""
    names, work = _chosen(study, rows), _Work(study, folder, device)
    found: list[Cost] = []
    trainings: dict[bool | None, float] = {}
    for who in names:
        how = study.networks[who]
        kind = None if how.depth is None else how.depth.weight > 0
        if who in untrained(study.networks, folder) and kind not in trainings:
            trainings[kind] = how.judged(holdout=work.choose, device=device, precision=study.precision)
        found.append(Cost(f"train {who}", trainings[kind] if who in untrained(study.networks, folder) else 0.0))
        found.append(Cost(f"measure {who}: labels", work.try_labelling(who)))
    return found


def _chosen(study: Tier, rows: Sequence[str] | None) -> list[str]:
    for row in rows or ():
        if row not in study.networks:
            raise RobustsegError(
                f"expected rows that are networks of the study, got '{row}'; try {', '.join(study.networks)}"
            )
    return list(rows or study.networks)


def _home(folder: Path, who: str) -> Path:
    return place_of(folder, who).parent


def _records(folder: Path, who: str) -> list[Record]:
    home = _home(folder, who)
    return read_records(home) if (home / "records.jsonl").is_file() else []


class _Work:
    """The networks and data of one run, built when they are needed."""

    def __init__(self, study: Tier, folder: Path, device: str):
        self.study, self.folder, self.device = study, make_folder(folder), device
        self.report: Dataset = Resized(Spread(api.data(study.report), study.images), study.size)
        self.choose: Dataset = Resized(api.data(study.choose), study.size)
        self._networks: dict[str, Network] = {}
        self._judged: dict[str, float] = {}

    def train(self, who: str, on_step: Callable[[str], None]) -> None:
        where = {"device": self.device, "precision": self.study.precision}
        pretrain({who: self.study.networks[who]}, self.folder, holdout=self.choose, on_step=on_step, **where)

    def network(self, who: str) -> Network:
        """A network by its name; before it was trained one of its architecture stands in, to judge costs by."""
        if who not in self._networks:
            spec = buildable(self.study.networks[who], self.folder, who)
            self._networks[who] = api.network(spec).to(self.device)
        return self._networks[who]

    def conditions(self, change: Change | None) -> Conditions:
        return Conditions(change.draw if change else 0, self.study.batch_size, self.study.passes)

    def label(self, who: str, change: Change | None, on_batch: Callable[[Progress], None]) -> None:
        """Measure one network under one perturbation; None: clean."""
        attack = api.perturbation(change.spec) if change else None
        options: dict[str, Any] = {"folder": _home(self.folder, who), "panels": 0, "on_batch": on_batch}
        evaluate(self.network(who), self.report, attack, conditions=self.conditions(change), **options)

    def try_labelling(self, who: str) -> float:
        """Seconds of what is not measured yet, judged by one image for each family."""
        there = {(r.perturbation, r.seed) for r in _records(self.folder, who)}
        seconds = 0.0
        for change in self.study.changes.of(who):
            attack = api.perturbation(change.spec)
            if (attack.spec, change.draw) in there:
                continue
            if change.family not in self._judged:
                conditions = replace(self.conditions(change), batch_size=1)
                cost = plan([self.network(who)], self.report, attack, conditions=conditions)
                self._judged[change.family] = sum(c.seconds for c in cost)
            seconds += self._judged[change.family]
        return seconds

    def look(self, who: str) -> None:
        """Measure depth and poses of one network, and what must be exact; what is there with the same weights is kept."""
        study, home = self.study, _home(self.folder, who)
        trained = trained_on_video(home).to(self.device)
        network = trained.network
        about = {
            "format": MEASURES,
            "weights": digest(network),
            "video": study.video,
            "depth": dict(study.depth),
            "held": study.held,
            "frame": list(study.frame),
        }
        path = home / "measures.jsonl"
        there = read_measures(path)
        if there and all(m.about == about for m in there):
            return
        held = Resized(api.data(study.held), study.frame)
        video = api.data(study.video)
        some = next(batches(held, 2)).to(self.device)
        exact = copy.deepcopy(network).double().eval()
        split = split_measures(exact, some.images.double(), some.extras["next"].double())
        static = static_measures(trained, some)
        found = [Measure("split", who, "", about, split), Measure("static", who, "", about, static)]
        rows = RowDepth.of(network, video, size=study.frame)
        for where, spec in {**study.depth, HELD_VIDEO: study.held}.items():
            found += judged_measures(trained, rows, api.data(spec), study.frame, where=where, who=who, about=about)
        lost = {f"views {HELD_VIDEO}", f"pose {HELD_VIDEO}", *(f"depth {w}" for w in study.depth)} - {
            m.kind for m in found
        }
        if lost:
            raise RobustsegError(
                f"expected depth, neighbours and poses in the data of the study, got no {', '.join(sorted(lost))}; try whole drives"
            )
        lines = [json_line(replace(measure, commit=commit()).to_json()) for measure in found]
        write_whole(path, "".join(lines))


__all__ = ["Cost", "Tier", "conclude", "costs", "reproduce", "tier"]
