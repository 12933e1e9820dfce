"""Can the numbers of a run be trusted? Audit its attacks by the controls that papers leave out.

Of every network that a run measured it looks at output and gradient (`probes`) and at what 64/255 leaves; the strongest
attack within each budget it holds against noise, a single step, transfer, a search without gradients and ten times the
steps, and where all of them were made on other networks, against the same attack on this one (`controls`). Each control gives a `Finding`: ok, suspicious or not checked, the numbers, why, and what to try next.

Findings are appended to `audit.jsonl` in the run's folder, and what was run for them to its folder `audit/`: a cut
audit goes on, a finished one costs nothing again.
"""

import copy
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from robustseg import api
from robustseg.audit import controls, probes
from robustseg.audit.controls import LARGE, Control, Left
from robustseg.audit.verdicts import Verdict, unchecked
from robustseg.core import registry
from robustseg.core.code import code_of
from robustseg.core.errors import RobustsegError
from robustseg.core.files import append_line, sole_writer
from robustseg.core.provenance import commit, digest
from robustseg.core.types import Batch, Dataset, Network
from robustseg.datasets import Chosen, Resized, read
from robustseg.datasets.views import content
from robustseg.evaluation.run import Conditions, Progress, evaluate
from robustseg.networks.weights import read_metadata, zoo_files
from robustseg.results import metrics
from robustseg.results.findings import FILE, NOT_CHECKED, Finding, on, read_findings, subject_of
from robustseg.results.record import Record, read_records
from robustseg.results.summary import conditions


class Cost(NamedTuple):
    """What the audit of one attack (or of a network) will take at the speed of the recorded run."""

    network: str
    perturbation: str
    passes: int
    seconds: float


@dataclass(frozen=True)
class Subject:
    """One network of a run on one data set: all its records there, and the images that the audit takes."""

    records: list[Record]
    ids: tuple[str, ...]

    @property
    def first(self) -> Record:
        """Any of the records: network, data and conditions are those of all."""
        return self.records[0]

    @property
    def attacks(self) -> list[Record]:
        """The attacks to audit: within each budget, of those that follow the network's own gradient, the strongest."""
        return list(self._strongest(lambda record: record.source in ("", record.network)).values())

    @property
    def borrowed(self) -> list[Record]:
        """Within each budget that no attack on the network itself was given, the strongest made on another one."""
        own = {controls.budget_of(record).spec for record in self.attacks}
        others = self._strongest(lambda record: record.source not in ("", record.network))
        return [record for budget, record in others.items() if budget not in own]

    def _strongest(self, counts: Callable[[Record], bool]) -> dict[str, Record]:
        known = registry.table()
        found: dict[str, Record] = {}
        for record in self.records:
            registered = ("perturbation", record.perturbation_name) in known
            if not registered or record.kind != "attack" or not record.backwards or not counts(record):
                continue
            budget = controls.budget_of(record)
            rival = found.get(budget.spec)
            if budget.eps and (rival is None or metrics.miou(record.counts) < metrics.miou(rival.counts)):
                found[budget.spec] = record
        return found

    @property
    def planned(self) -> list[tuple[Record | None, list[Control]]]:
        """Each record to hold against controls, None for the network as such, and these."""
        own = [(record, controls.controls(record)) for record in self.attacks]
        return [(None, [LARGE]), *own, *((record, [controls.adaptive(record)]) for record in self.borrowed)]


def subjects(records: Sequence[Record], images: int = 4) -> list[Subject]:
    """What there is to audit in a run.

    Args:
        records: of the run. images: so many of each data set, evenly spread.
    """
    if images < 1:
        raise RobustsegError(f"expected at least 1 image, got {images}; try --images 4")
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        found.setdefault(conditions(record), []).append(record)
    result = []
    for own in found.values():
        ids, count = own[0].ids, min(images, len(own[0].ids))
        result.append(Subject(own, tuple(ids[(2 * i + 1) * len(ids) // (2 * count)] for i in range(count))))
    return result


def costs(folder: str | Path, *, images: int = 4) -> list[Cost]:
    """What `audit` will take, judged by what the records took; nothing is run.

    Args:
        folder: of the run. images: as for `audit`.
    """
    found = []
    for subject in subjects(read_records(folder), images):
        count = len(subject.ids)
        own = round(60 + LARGE.passes) * count  # the probes: 30 passes, most in float64, at twice the time
        found.append(Cost(subject.first.network, "", own, own * _pace(subject.first)))
        for record, held in subject.planned:
            if record is None:
                continue
            passes = round(sum(control.passes for control in held) * count)
            found.append(Cost(record.network, record.perturbation, passes, passes * _pace(record)))
    return found


def _pace(record: Record) -> float:
    return record.seconds / max(1, record.forwards + record.backwards)


def audit(
    folder: str | Path,
    *,
    images: int = 4,
    transfer: str | None = None,
    device: str = "cpu",
    build_network: Callable[[str], Network] = api.network,
    build_data: Callable[[str], Dataset] = api.data,
    on_finding: Callable[[Finding], None] = lambda finding: None,
    on_batch: Callable[[Progress], None] = lambda progress: None,
    on_skip: Callable[[str], None] = lambda reason: None,
) -> list[Finding]:
    """Audit every network and the strongest attacks of a run.

    Args:
        folder: with `records.jsonl`.
        images: so many of each data set, evenly spread.
        transfer: the spec of another network to make attacks on; None takes, of the other networks of the run and of
            the zoo that know the same classes, the one that labels the images best.
        device: where to run.
        build_network, build_data: specs to things; for what no spec rebuilds, the `__getitem__` of a dict, say.
        on_finding: called with each finding that is new. on_batch: called while controls run.
        on_skip: called with a sentence for the records of each network and data set that are left out, because the specs no
            longer give what was measured: the weights, code, images or masks have changed.

    Returns:
        The findings on the other records, of earlier audits too; of each control the latest.

    Raises:
        RobustsegError: no records, or none whose specs give what was measured. LabelSpaceMismatch: the other network knows
            other classes.
    """
    folder = Path(folder)
    records, audited, reasons = read_records(folder), list[Record](), list[RobustsegError]()
    with sole_writer(folder):
        for subject in subjects(records, images):
            try:
                _require_present(subject.first, build_network, build_data)
            except RobustsegError as error:
                reasons.append(error)
                on_skip(f"left out: {error}")
                continue
            audited += subject.records
            known = {found.key for found in read_findings(folder, torn=True) if found.status != NOT_CHECKED}
            run = _Run(folder, subject, records, transfer, device, build_network, build_data, on_batch)
            for finding in run.findings(known):
                append_line(folder / FILE, finding.to_json())
                on_finding(finding)
    if not audited:
        raise reasons[0]
    return on(audited, read_findings(folder))


def _require_present(
    record: Record, build_network: Callable[[str], Network], build_data: Callable[[str], Dataset]
) -> None:
    """Raise unless the specs of a record give the weights, code, images and masks that it was measured with."""
    network, data = build_network(record.network), Chosen(build_data(record.data), record.ids)
    if record.precision == "float64":
        network = copy.deepcopy(network).double()
    if digest(network) != record.weights or (record.verified and code_of(network) != record.code):
        raise RobustsegError(
            f"expected the network of the records, got other weights or code for '{record.network}'; "
            "try the files that it was measured with, or measure it again"
        )
    if record.verified and content(data).digest != record.content:
        raise RobustsegError(
            f"expected the images and masks of the records, got others for {record.data}; "
            "try the files that it was measured on, or measure it again"
        )


@dataclass(frozen=True)
class _Run:
    """The audit of one subject."""

    folder: Path
    subject: Subject
    records: list[Record]
    transfer: str | None
    device: str
    build_network: Callable[[str], Network]
    build_data: Callable[[str], Dataset]
    on_batch: Callable[[Progress], None]

    def findings(self, known: set[str]) -> Iterator[Finding]:
        """Each finding that is not known yet, as soon as it is there."""
        yield from self._probes(known)
        for record, held in self.subject.planned:
            for control in held:
                blank = self._blank(control.check, record, control)
                if blank.key not in known:
                    yield _filled(blank, self._verdict(control, record))

    def _probes(self, known: set[str]) -> Iterator[Finding]:
        blanks = [self._blank(check) for check in probes.CHECKS]
        if all(blank.key in known for blank in blanks):
            return
        batches = (Batch.of([read(self.data, i)]).to(self.device) for i in range(len(self.data)))
        # numbers that no run uses: a network may remember what it was shown
        looks = [probes.look(self.network, batch, number=100 + n) for n, batch in enumerate(batches)]
        verdicts = probes.judge(looks)
        yield from (_filled(blank, verdicts[blank.check]) for blank in blanks if blank.key not in known)

    def _verdict(self, control: Control, record: Record | None) -> Verdict:
        if control.other and self.stranger is None:
            return unchecked("no other network of these classes is at hand", "name one: --transfer SPEC")
        try:
            measured = self._measure(self.network, control.spec, self.stranger if control.other else None)
        except RobustsegError as error:  # no gradient, say
            return unchecked(f"the control could not be run: {error}", "see zero_gradients")
        if measured.content != self.clean.content:
            raise RobustsegError(
                f"expected {self.data.spec} as it was when the audit began, got other images or masks; try the audit again"
            )
        left = Left.of(measured, self.subject.ids)
        if record is None:
            return controls.judge_large(Left.of(self.clean, self.subject.ids), left)
        return controls.judge(control.check, Left.of(record, self.subject.ids), left)

    def _blank(self, check: str, record: Record | None = None, control: Control | None = None) -> Finding:
        first, stranger = self.subject.first, self.stranger if control and control.other else None
        return Finding(
            check=check,
            status=NOT_CHECKED,
            network=first.network,
            subject=subject_of(first),
            record=record.key if record else "",
            perturbation=record.perturbation if record else "",
            control=control.spec if control else "",
            source=stranger.spec if stranger else "",
            ids=self.subject.ids,
        )

    @functools.cached_property
    def network(self) -> Network:
        return self.build_network(self.subject.first.network).to(self.device)

    @functools.cached_property
    def data(self) -> Dataset:
        first = self.subject.first
        chosen = Chosen(self.build_data(first.data), self.subject.ids)
        return Resized(chosen, first.size) if first.size else chosen

    @functools.cached_property
    def clean(self) -> Record:
        return self._measure(self.network, "clean")

    @functools.cached_property
    def stranger(self) -> Network | None:
        """The network that attacks are transferred from; of several the one that labels the images best."""
        found = [n.to(self.device) for spec in self._candidates() if (n := self._built(spec))]
        if self.transfer is not None:
            found[0].label_space.require_same(self.data.label_space, mine=self.transfer, theirs=self.data.spec)
            return found[0]
        measured = [(network, self._measure(network, "clean")) for network in found]
        others = [(n, r) for n, r in measured if r.weights != self.subject.first.weights]
        return max(others, key=lambda pair: Left.of(pair[1], self.subject.ids).pixels)[0] if others else None

    def _built(self, spec: str) -> Network | None:
        """A network, or None where a spec of the records builds none any more."""
        try:
            return self.build_network(spec)
        except RobustsegError:
            if self.transfer is not None:
                raise
            return None

    def _candidates(self) -> list[str]:
        names = self.subject.first.label_space.names
        if self.transfer is not None:
            return [self.transfer]
        listed = [record.network for record in self.records if record.label_space.names == names]
        for name, file in zoo_files().items():
            if tuple(json.loads(read_metadata(file).get("names", "[]"))) == names:
                listed.append(f"zoo:{name}")
        return [spec for spec in dict.fromkeys(listed) if spec != self.subject.first.network]

    def _measure(self, network: Network, spec: str, source: Network | None = None) -> Record:
        first = self.subject.first
        return evaluate(
            network,
            self.data,
            registry.build("perturbation", spec),
            source,
            conditions=Conditions(first.seed, first.batch_size, first.precision),
            folder=self.folder / "audit",
            panels=0,
            on_batch=self.on_batch,
        )


def _filled(blank: Finding, verdict: Verdict) -> Finding:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return replace(blank, **verdict._asdict(), commit=commit(), started=started)
