"""Bär et al. 2020, run: pretrain, finetune, attack, vote, on made-up streets, on CamVid, or by the paper's protocol.

Every step goes on where it was cut, and what is there already is used as it is: adaptive networks in
`FOLDER/networks/ROW-SEED/adaptive.safetensors` (rows of `baer2020_evidence.LAYERS`, with `_alpha0.9` behind where alpha is
not 0.6), measurements in `FOLDER/records.jsonl`. What follows from the records is in `baer2020_claims`.

Decisions of ours, where the paper is silent or misses something: see `training.redundant`; a control row without feature
term (alpha = 0); three seeds for the rows that carry claims; the threshold is fitted on clean images to choose on, beside
the paper's 0.1; and attackers who know more than one of the networks.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.core.files import make_folder
from robustseg.core.provenance import digest
from robustseg.core.types import Dataset, Network
from robustseg.datasets.views import Resized
from robustseg.evaluation.run import Conditions, Progress, evaluate, plan
from robustseg.monitor.triplet import Triplet
from robustseg.networks import weights
from robustseg.results.record import Record, read_records
from robustseg.studies.baer2020_claims import findings, tables
from robustseg.studies.baer2020_evidence import (
    COLUMNS,
    LAYERS,
    MAIN,
    OTHER,
    PAPER,
    TABLE_3,
    Attack,
    Figures,
    Names,
    beyond,
    row_name,
)
from robustseg.studies.legacy import SEEDS, Cost, Finding, made_by, tier_of, write_study
from robustseg.studies.pretraining import Pretraining, buildable, pretrain, spec_of, untrained
from robustseg.training import Recipe
from robustseg.training.fabric import fabric_on
from robustseg.training.redundant import AdaptiveRecipe, train_adaptive

LAYER_SETS = {"none": ("all",), "updown": ("down", "up")}
"""What a row's name means where it is no group of `training.matching.layers_of`; the control watches all layers."""
CLAIMED = ("down2", "none", "all")
"""The rows that carry the claims of every tier: three seeds each."""


@dataclass(frozen=True)
class Tier:
    """Where the study is run: specs of networks and data, sizes, recipes.

    Args:
        name: of the tier. protocol: what must be said beside each figure.
        teacher, student: a network spec, or how to train it.
        unlabelled: images to finetune on. choose: to choose on. report: to report on.
        size: (height, width) of what is measured.
        recipe: of finetuning, but for layers, alpha and seed. precision: of all training.
        steps: of the attacks beyond the paper, see `beyond`.
        decisive: see `Names`.
        batch_size: images at a time when measuring.
        rows: which rows are run unless others are named.
    """

    name: str
    protocol: str
    teacher: str | Pretraining
    student: str | Pretraining
    unlabelled: str
    choose: str
    report: str
    size: tuple[int, int]
    recipe: dict[str, Any] = field(default_factory=dict)
    precision: str = "32-true"
    steps: int = 20
    decisive: str = ""
    batch_size: int = 4
    rows: tuple[str, ...] = CLAIMED


def tier(name: str, data: str = "data") -> Tier:
    """A tier by its name; `data` is the folder with `camvid` and `video`, or with `cityscapes`.

    Raises:
        RobustsegError: there is no such tier.
    """
    return tier_of(name, {"synthetic": _synthetic, "camvid": _camvid, "full": _full})(data)


def _synthetic(_: str) -> Tier:
    size, text = (48, 96), "48x96"
    return Tier(
        name="synthetic",
        protocol="made-up streets at 96x48, a few updates: shows that it runs, claims nothing",
        teacher="zoo:erfnet-streets",
        student=Pretraining(
            "erfnet(classes='camvid', width=0.25)",
            f"streets(scenes=16, frames=1, size='{text}', split='train')",
            Recipe(epochs=12, batch_size=4, crop=size, scale=(1.0, 1.0), learning_rate=3e-3, ema=0.9, check_every=6),
        ),
        unlabelled=f"streets(scenes=8, frames=1, size='{text}', split='val')",
        choose=f"streets(seed=0, scenes=4, frames=1, size='{text}', split='val')",
        report=f"streets(seed=0, scenes=4, frames=1, size='{text}', split='test')",
        size=size,
        recipe={
            "updates": 12,
            "batch_size": 4,
            "crop": size,
            "scale": (1.0, 1.0),
            "learning_rate": 1e-3,
            "check_every": 6,
        },
        steps=4,
    )


def _camvid(data: str) -> Tier:
    unlabelled = (
        f"camvid(root='{data}/camvid', split='val')",
        f"frames('{data}/video/kitti_test984.mp4', every=8)",
        f"frames('{data}/video/udacity_solidWhiteRight.mp4', every=16)",
    )
    return Tier(
        name="camvid",
        protocol="cpu: 240x180, 40 test frames spread evenly over Seq05VD (a new drive) and 0001TP (a seen one)",
        teacher="zoo:erfnet-camvid",
        student="zoo:erfnet-half-camvid",
        unlabelled=f"joined({', '.join(unlabelled)})",
        choose=f"camvid(root='{data}/camvid', split='holdout')",
        report=f"camvid(root='{data}/camvid', split='test', subset='cpu')",
        size=(180, 240),
        recipe={"updates": 400, "scale": (0.45, 1.0), "check_every": 200},
        precision="bf16-mixed",
        decisive="Seq05VD",
    )


def _full(data: str) -> Tier:
    root, size = f"{data}/cityscapes", (512, 1024)
    coarse = Path(root, "leftImg8bit", "train_extra")
    cities = sorted(p for p in coarse.glob("*") if p.is_dir()) or [coarse]
    labelled = f"cityscapes(root='{root}', split='train')"
    space = "cityscapes"
    recipe = Recipe(epochs=150, batch_size=6, crop=size, scale=(0.5, 1.0), learning_rate=5e-4)
    return Tier(
        name="full",
        protocol="Cityscapes at 1024x512: fine train, coarse train_extra without labels, Lindau to choose, Frankfurt and "
        "Munster to report",
        teacher=Pretraining("smp('DeepLabV3Plus', encoder='resnet101', classes='cityscapes')", labelled, recipe),
        student=Pretraining("erfnet(classes='cityscapes')", labelled, recipe),
        unlabelled=f"joined({', '.join(f'frames({str(city)!r}, classes={space!r})' for city in cities)})",
        choose=f"cityscapes(root='{root}', split='lindau')",
        report=f"cityscapes(root='{root}', split='frankfurt+munster')",
        size=size,
        recipe={"updates": 25000, "crop": size, "scale": (0.5, 1.0), "check_every": 1000},
        precision="bf16-mixed",
        rows=(*LAYERS, *(row_name(*key) for key in TABLE_3 if key[1] != 0.6)),
    )


@dataclass(frozen=True)
class Measurement:
    """One call of `evaluate`: the roles that are measured, on which images, under which attack (None: clean)."""

    targets: tuple[str, ...]
    images: str
    attack: Attack | None


def measurements(adaptive: Sequence[str], *, steps: int) -> list[Measurement]:
    """All that is measured, in order: clean first, since thresholds are fitted there."""
    watched = [n for n in adaptive if n.rpartition("-")[0] == MAIN.rpartition("-")[0]]
    everybody = ("T", "S", *adaptive, *(f"triplet:{n}" for n in watched))
    some = ("T", "S", MAIN, f"triplet:{MAIN}")
    listed = [Measurement(everybody, images, None) for images in ("choose", "report")]
    listed += [Measurement(("T", "S", *adaptive, f"triplet:{MAIN}"), "choose", attack) for attack in PAPER]
    listed += [Measurement(everybody, "report", attack) for attack in PAPER]
    last = [a for a in beyond(steps) if a.source.removeprefix("triplet:") in ("T", "S", *adaptive)]
    return listed + [Measurement(some, "report", attack) for attack in last]


def reproduce(
    study: Tier,
    folder: Path,
    *,
    rows: Sequence[str] | None = None,
    device: str = "cpu",
    on_step: Callable[[str], None] = lambda step: None,
    on_batch: Callable[[Progress], None] = lambda progress: None,
) -> list[Finding]:
    """Run what is not there yet, then write `tables.md` and `verdicts.json` from the records.

    Args:
        study: the tier. folder: of networks, records and results.
        rows: of the layer sets, in place of the tier's; `down2` is always among them.
        device: where to run. on_step: told of each step. on_batch: called after every batch that is measured.

    Returns:
        The claims with their verdicts.

    Raises:
        RobustsegError: a row is unknown, data is missing, or a network in the folder was made by another recipe.
    """
    names = _names(rows or study.rows)
    work = _Work(study, folder, device)
    work.pretrain(on_step)
    for name in names:
        work.finetune(name, on_step)
    for job in measurements(names, steps=study.steps):
        on_step(_told(job))
        work.measure(job, on_batch)
    return conclude(study, folder)


def conclude(study: Tier, folder: Path) -> list[Finding]:
    """Tables and verdicts from the records of a folder, written there; nothing is run."""
    names, records = _specs(study, folder), read_records(folder)
    figures = Figures(records, names, steps=study.steps)
    found = findings(figures)
    about = {
        "tier": study.name,
        "protocol": study.protocol,
        "teacher": names.teacher,
        "student": names.student,
        "images": f"chosen on {names.choose}, reported on {names.report}",
        "beyond the paper": f"10/255, {study.steps} steps against one network, {max(1, study.steps // 2)} against several, "
        "bfloat16 passes, against down 2 of seed 0",
        **made_by(records),
    }
    title = "Baer et al. 2020: redundant networks with a layer-specific loss and majority vote"
    write_study(folder, title=title, about=about, tables=tables(figures), findings=found)
    return found


def costs(study: Tier, folder: Path, *, rows: Sequence[str] | None = None, device: str = "cpu") -> list[Cost]:
    """What `reproduce` would take, each step tried on one image or two updates; what is there costs nothing.

    Pretraining is not judged: it is said as a step of unknown length (NaN).
    """
    work = _Work(study, folder, device)
    found = [Cost(f"pretrain the {who}", float("nan")) for who in work.untrained()]
    names = _names(rows or study.rows)
    missing = [name for name in names if not work.finished(name)]
    if missing:
        seconds = work.try_finetuning(missing[0])
        found += [Cost(f"finetune {name}", seconds) for name in missing]
    known = {
        (r.perturbation, _specs(study, folder).role(r.source) if not r.clean else "", r.data) for r in _there(folder)
    }
    for job in measurements(names, steps=study.steps):
        spec, source = (job.attack.perturbation, job.attack.source) if job.attack else ("clean", "")
        done = (spec, source, getattr(study, job.images)) in known and not missing
        found.append(Cost(_told(job), 0.0 if done else work.try_measuring(job)))
    return found


def _there(folder: Path) -> list[Record]:
    return read_records(folder) if (folder / "records.jsonl").is_file() else []


def _told(job: Measurement) -> str:
    what = f"{job.attack.name} ({job.attack.perturbation})" if job.attack else "clean"
    return f"measure {len(job.targets)} networks, images to {job.images}: {what}"


def _names(rows: Sequence[str]) -> list[str]:
    """The adaptive networks of these rows: three seeds of those that carry claims, else one."""
    known = (*LAYERS, *(row_name(*key) for key in TABLE_3))
    for row in rows:
        if row not in known:
            raise RobustsegError(f"expected rows of table 2 or 3, got '{row}'; try {', '.join(dict.fromkeys(known))}")
    wanted = dict.fromkeys(("down2", *rows))
    return [f"{row}-{seed}" for row in wanted for seed in range(SEEDS if row in CLAIMED else 1)]


def _specs(study: Tier, folder: Path) -> Names:
    """The specs that records name things by."""
    specs = spec_of(study.teacher, folder, "teacher"), spec_of(study.student, folder, "student")
    return Names(*specs, study.choose, study.report, study.decisive)


class _Work:
    """The networks and data of one run, built when they are needed."""

    def __init__(self, study: Tier, folder: Path, device: str):
        self.study, self.folder, self.device = study, make_folder(folder), device
        # specs as the built data spells them, so that records are found again
        self._data = {n: api.data(getattr(study, n)) for n in ("choose", "report")}
        self._networks: dict[str, Network] = {}

    def data(self, name: str) -> Dataset:
        return Resized(self._data[name], self.study.size)

    def fabric(self) -> Fabric:
        return fabric_on(self.device, self.study.precision)

    @property
    def static(self) -> dict[str, str | Pretraining]:
        return {"teacher": self.study.teacher, "student": self.study.student}

    def untrained(self) -> list[str]:
        return list(untrained(self.static, self.folder))

    def pretrain(self, on_step: Callable[[str], None]) -> None:
        where = {"device": self.device, "precision": self.study.precision}
        pretrain(self.static, self.folder, holdout=self.data("choose"), on_step=on_step, **where)

    def network(self, role: str) -> Network:
        """A network by its role, see `Names.role`; the student stands in for what is not there."""
        if role not in self._networks:
            self._networks[role] = self._built(role).to(self.device)
        return self._networks[role]

    def _built(self, role: str) -> Network:
        if role in ("T", "S"):
            who = "teacher" if role == "T" else "student"
            return api.network(buildable(self.static[who], self.folder, who))
        if role.startswith("triplet:"):
            return Triplet(self.network("T"), self.network("S"), self.network(role.removeprefix("triplet:")))
        path = self.folder / "networks" / role / "adaptive.safetensors"
        if path.is_file():
            return api.network(f"weights({str(path)!r})")
        stand_in = copy.deepcopy(self.network("S"))
        stand_in.spec = f"weights({str(path)!r})"
        return stand_in

    def source(self, role: str) -> Network:
        """What an attack is made against: a triplet with its threshold fitted on the images to choose on."""
        plain = self.network(role)
        if not isinstance(plain, Triplet):
            return plain
        figures = Figures(_there(self.folder), _specs(self.study, self.folder), steps=self.study.steps)
        fitted = figures.fitted(role.removeprefix("triplet:"))
        threshold = (None, fitted) if fitted == fitted else plain.threshold
        return plain.with_(threshold=threshold)

    def recipe(self, name: str) -> AdaptiveRecipe:
        row, _, seed = name.rpartition("-")
        layers, _, alpha = row.partition("_alpha")
        weight = 0.0 if row == "none" else float(alpha or 0.6)
        return AdaptiveRecipe(
            layers=LAYER_SETS.get(layers, (layers,)), alpha=weight, seed=int(seed), **self.study.recipe
        )

    def finished(self, name: str) -> bool:
        """Whether an adaptive network is there, made to the end by the recipe of its row from these networks."""
        path = self.folder / "networks" / name / "adaptive.safetensors"
        if not path.is_file() or self.untrained():
            return False
        notes, wanted = weights.notes_of(path), asdict(self.recipe(name))
        made = notes.get("recipe", {})
        same = all(
            made.get(k) == wanted[k] for k in ("alpha", "beta", "gamma", "p", "relative", "learning_rate", "seed")
        )
        origin = all(digest(self.network(r)) in notes.get(w, "") for r, w in (("T", "teacher"), ("S", "student")))
        if not (same and origin):
            raise RobustsegError(f"expected '{path}' made by the recipe of its row, got another; try another --out")
        return bool(notes["updates"] >= wanted["updates"])

    def finetune(self, name: str, on_step: Callable[[str], None]) -> None:
        if self.finished(name):
            return
        on_step(f"finetune {name}")
        self._finetune(name, self.folder / "networks" / name, self.recipe(name))
        self._networks.pop(name, None)

    def _finetune(self, name: str, folder: Path, recipe: AdaptiveRecipe, **options: Any) -> None:
        teacher, student = self.network("T"), self.network("S")
        train_adaptive(
            teacher,
            student,
            api.data(self.study.unlabelled),
            folder=folder,
            recipe=recipe,
            fabric=self.fabric(),
            **options,
        )

    def measure(self, job: Measurement, on_batch: Callable[[Progress], None]) -> None:
        networks, attack, source, conditions = self._job(job)
        options: dict[str, Any] = {"folder": self.folder, "panels": 0, "on_batch": on_batch}
        evaluate(networks, self.data(job.images), attack, source, conditions=conditions, **options)

    def _job(self, job: Measurement) -> tuple[list[Network], Any, Network | None, Conditions]:
        networks = [self.network(role) for role in job.targets]
        attack = api.perturbation(job.attack.perturbation) if job.attack else None
        source = self.source(job.attack.source) if job.attack else None
        own = job.attack is None or job.attack in PAPER
        conditions = Conditions(batch_size=self.study.batch_size, precision="float32" if own else "bfloat16")
        return networks, attack, source, conditions

    def try_measuring(self, job: Measurement) -> float:
        """Seconds, judged by one image."""
        networks, attack, source, conditions = self._job(job)
        data = self.data(job.images)
        return sum(
            c.seconds for c in plan(networks, data, attack, source, conditions=replace(conditions, batch_size=1))
        )

    def try_finetuning(self, name: str) -> float:
        """Seconds, judged by the second of two updates."""
        recipe, times = self.recipe(name), []
        with tempfile.TemporaryDirectory() as place:
            short = replace(recipe, updates=2, check_every=1)
            self._finetune(name, Path(place), short, on_update=lambda update: times.append(time.perf_counter()))
        return (times[1] - times[0]) * recipe.updates


__all__ = [
    "COLUMNS",
    "OTHER",
    "Cost",
    "Measurement",
    "Pretraining",
    "Tier",
    "conclude",
    "costs",
    "measurements",
    "reproduce",
    "tier",
]
