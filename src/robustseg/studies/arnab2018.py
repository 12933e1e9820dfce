"""Arnab et al. 2018, run: what makes a segmentation network robust, on the tier's networks or on anybody's.

Every step goes on where it was cut, and what is there already is used as it is: trained networks in
`FOLDER/networks/NAME/best.safetensors`, measurements in `FOLDER/records.jsonl`, the audit of the CRF in `FOLDER/crf`. What is
measured is said figure by figure (`arnab2018_evidence.needs`); one attack serves all who are measured on it. What follows from the
records is in `arnab2018_claims`, `arnab2018_words` and `arnab2018_figures`.

Decisions of ours, where the paper is silent or misses something: images are clipped to [0, 1], which the authors' code does not;
SEA beside the paper's four attacks; multi-scale fusion, CRF and input transformations are put around one trained network, so that
weights are equal and what is compared is what is around them; input transformations are attacked by PGD, through stand-ins where
they round and with the mean gradient over draws where they are random.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from robustseg import api
from robustseg.attacks.gradient import steps_of
from robustseg.audit import audit
from robustseg.core import registry
from robustseg.core.files import make_folder, write_whole
from robustseg.core.types import Dataset, Network
from robustseg.datasets.views import Resized, Spread
from robustseg.evaluation.run import Conditions, Progress, evaluate, plan
from robustseg.results.findings import read_findings
from robustseg.results.record import Record, read_records
from robustseg.studies.arnab2018_claims import findings, tables
from robustseg.studies.arnab2018_evidence import AROUND, CRF, UNTARGETED, Evidence, needs
from robustseg.studies.arnab2018_figures import page
from robustseg.studies.arnab2018_tiers import Tier, tier
from robustseg.studies.arnab2018_words import words
from robustseg.studies.pretraining import buildable, pretrain, spec_of, untrained
from robustseg.studies.study import Cost, Finding, made_by, write_study

TITLE = "Arnab et al. 2018: what makes a segmentation network robust"


def reproduce(
    study: Tier,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[str], None] = lambda step: None,
    on_batch: Callable[[Progress], None] = lambda progress: None,
) -> list[Finding]:
    """Run what is not there yet, then write `tables.md`, `verdicts.json` and `figures.html`.

    Args:
        study: the tier. folder: of networks, records and results.
        device: where to run. on_step: told of each step. on_batch: called after every batch that is measured.

    Returns:
        The claims with their verdicts.

    Raises:
        RobustsegError: data or a network is missing, or a network in the folder was trained by another recipe.
    """
    work = _Work(study, folder, device)
    work.pretrain(on_step)
    for job in work.jobs():
        on_step(_told(job))
        work.measure(job, on_batch)
    on_step("audit the CRF")
    work.audit(on_batch)
    return conclude(study, folder)


def train(
    study: Tier, folder: Path, *, device: str = "cpu", on_step: Callable[[str], None] = lambda step: None
) -> None:
    """Train what is not trained yet, and no more: several processes may do it at once, each other networks."""
    _Work(study, folder, device).pretrain(on_step)


def conclude(study: Tier, folder: Path) -> list[Finding]:
    """Tables, verdicts, words and figures from the records of a folder, written there; nothing is run."""
    records = read_records(folder)
    found = evidence(study, folder, records)
    claims, drawn, said = findings(found), tables(found), words(found, study.protocol)
    about = {
        "tier": study.name,
        "protocol": study.protocol,
        "images": study.data,
        **made_by(records),
    }
    write_study(folder, title=TITLE, about=about, tables=drawn, findings=claims, words=said)
    write_whole(folder / "figures.html", page(TITLE, found, claims=claims, tables=drawn, words=said, about=about))
    return claims


def evidence(study: Tier, folder: Path, records: Sequence[Record]) -> Evidence:
    """The records of a folder by what they are of."""
    names = list(study.networks)
    given = {name: spec_of(study.networks[name], folder, name) for name in names}
    given |= {around: template.format(given[names[0]]) for around, template in AROUND.items()}
    return Evidence(
        records,
        {role: registry.spelled("network", spec) for role, spec in given.items()},
        data=registry.spelled("data", study.data),
        names=names,
        attacks=study.attacks,
        widths=study.widths,
        several=study.several,
        audited=read_findings(folder / "crf"),
    )


def costs(study: Tier, folder: Path, *, device: str = "cpu") -> list[Cost]:
    """What `reproduce` would take, a row for each network that is attacked, judged by one step on one image; what is there costs nothing.

    Training is not judged: it is said as a step of unknown length (NaN).
    """
    work = _Work(study, folder, device)
    found = [Cost(f"train {name}", float("nan")) for name in untrained(study.networks, folder)]
    there = read_records(folder) if (folder / "records.jsonl").is_file() else []
    known, passes = evidence(study, folder, there), dict[str, float]()
    for job in work.jobs():
        done = all(known.measured(job.source, target, job.attack) for target in job.targets)
        passes[job.source] = passes.get(job.source, 0.0) + (0.0 if done else work.passes(job))
    for source, number in passes.items():
        found.append(Cost(f"attack {source}", number * work.try_pass(source) if number else 0.0))
    # probes, 64/255, single step, transfer and search; ten times the steps
    audited = (600 + 40 * gradients(UNTARGETED.format(study.attacks.around[-1]))) * study.audited
    return [*found, Cost("audit the CRF", 0.0 if read_findings(folder / "crf") else audited * work.try_pass(CRF))]


class Job(NamedTuple):
    """One call of `evaluate`: the attack (None: clean) is made on `source` and measured on all targets."""

    source: str
    targets: tuple[str, ...]
    attack: str | None


def _told(job: Job) -> str:
    who = job.source if job.targets == (job.source,) else f"{job.source}, measured on {len(job.targets)} networks"
    return f"{job.attack.partition(', class_pixels')[0] if job.attack else 'clean'}: {who}"


class _Work:
    """The networks and images of one run, built when they are needed."""

    def __init__(self, study: Tier, folder: Path, device: str):
        self.study, self.folder, self.device = study, make_folder(folder), device
        self._networks: dict[str, Network] = {}
        opened = api.data(study.data)
        self._images = Spread(opened, study.images or len(opened))

    def data(self, attack: str | None) -> Dataset:
        """The images that an attack is tried on."""
        few = self.study.few if attack and attack.startswith("sea(") else None
        return self.resized(Spread(self._images, few) if few else self._images)

    def resized(self, data: Dataset) -> Dataset:
        return Resized(data, self.study.size) if self.study.size else data

    def pretrain(self, on_step: Callable[[str], None]) -> None:
        if untrained(self.study.networks, self.folder):
            holdout = self.resized(api.data(self.study.choose))
            where = {"device": self.device, "precision": self.study.precision}
            pretrain(self.study.networks, self.folder, holdout=holdout, on_step=on_step, **where)

    def network(self, role: str) -> Network:
        if role not in self._networks:
            self._networks[role] = self._built(role).to(self.device)
        return self._networks[role]

    def _built(self, role: str) -> Network:
        networks, base = self.study.networks, next(iter(self.study.networks))
        if role in networks:
            return api.network(buildable(networks[role], self.folder, role))
        return api.network(AROUND[role].format(buildable(networks[base], self.folder, base)))

    def jobs(self) -> list[Job]:
        """All that is measured, clean first; what one attack serves is one job."""
        targets: dict[tuple[str, str], list[str]] = {}
        for need in needs(list(self.study.networks), self.study.attacks):
            targets.setdefault((need.source, need.attack), []).append(need.target)
        clean = [Job(role, (role,), None) for role in (*self.study.networks, *AROUND)]
        return [*clean, *(Job(source, tuple(own), attack) for (source, attack), own in targets.items())]

    @property
    def conditions(self) -> Conditions:
        return Conditions(batch_size=self.study.batch_size)

    def measure(self, job: Job, on_batch: Callable[[Progress], None]) -> None:
        attack = api.perturbation(job.attack) if job.attack else None
        options: dict[str, Any] = {"folder": self.folder, "panels": 0, "on_batch": on_batch}
        networks = [self.network(role) for role in job.targets]
        evaluate(
            networks, self.data(job.attack), attack, self.network(job.source), conditions=self.conditions, **options
        )

    def passes(self, job: Job) -> float:
        """Forward passes of the source that a job costs, where a gradient takes three and being measured two."""
        return (3 * gradients(job.attack) + 2 * len(job.targets)) * len(self.data(job.attack))

    def try_pass(self, role: str) -> float:
        """Seconds of one forward pass on one image, judged by an attack of one step."""
        source, data = self.network(role), self.resized(Spread(self._images, 1))
        step = api.perturbation("fgsm(budget='linf:1/255')")
        (cost,) = plan([source], data, step, source, conditions=replace(self.conditions, batch_size=1))
        return cost.seconds / 5

    def audit(self, on_batch: Callable[[Progress], None]) -> None:
        """Audit the untargeted attack on the CRF at the largest eps; the stranger that transfers is the network inside."""
        folder, base = self.folder / "crf", next(iter(self.study.networks))
        attack = api.perturbation(UNTARGETED.format(self.study.attacks.around[-1]))
        data = self.resized(Spread(self._images, self.study.audited))
        evaluate(
            self.network(CRF), data, attack, conditions=self.conditions, folder=folder, panels=0, on_batch=on_batch
        )
        spec = spec_of(self.study.networks[base], self.folder, base)
        audit(folder, images=self.study.audited, transfer=spec, device=self.device, on_batch=on_batch)


def gradients(attack: str | None) -> int:
    """How many an attack of this study takes on an image."""
    if attack is None:
        return 0
    parsed = api.perturbation(attack)
    name, given = attack.partition("(")[0], getattr(parsed, "arguments", {})
    if name in ("sea", "pgd"):
        return int(given["steps"] * given.get("draws", 1) * (3 if name == "sea" else 1))
    return 1 if name.startswith("arnab2018_fgsm") else steps_of(given["budget"], torch.empty(0, 3, 1, 1))


__all__ = ["Job", "Tier", "conclude", "costs", "evidence", "gradients", "reproduce", "tier", "train"]
