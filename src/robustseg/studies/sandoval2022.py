"""Sandoval-Segura 2022, run: robustness of three trainings, holes filled and scenes drawn by each, input gradients.

Every step goes on where it was cut, and what is there already is used as it is: `FOLDER/records.jsonl` holds what the
networks keep under attack, `FOLDER/measures.jsonl` what their paintings and gradients are like, image by image, and `FOLDER/panels`
the pictures (they show the images of the data, so they are not for publication where those are not). What follows from
records and measures is in `sandoval2022_claims`.

The paper's protocol is not to be had. Ours: one hole a third of the image high and wide, at a place drawn for each image; the
ground truth as the target; the border's colours grown inward as the start; the same hole, target, start and steps for every network;
an independent network, trained on clean images, judges.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from robustseg import api
from robustseg.core.files import append_line, make_folder, sole_writer
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import commit, digest
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Dataset, Mask, Network
from robustseg.datasets.views import Resized, Spread, batches
from robustseg.evaluation.run import Conditions, Progress, evaluate, plan
from robustseg.losses.pixelwise import total_variation
from robustseg.results.record import read_records
from robustseg.studies.legacy import Cost, Finding, Measure, read_measures, write_study
from robustseg.studies.pretraining import buildable, pretrain, spec_of, untrained
from robustseg.studies.sandoval2022_claims import ORIGINAL, ROLES, START, Evidence, findings, tables
from robustseg.studies.sandoval2022_panels import blind_pairs, comparison, gradient_sheet
from robustseg.studies.sandoval2022_tiers import Tier, tier
from robustseg.synthesis.gradients import edge_agreement, fidelity, high_frequency_share, input_gradients, judged
from robustseg.synthesis.output import class_sheet, picture_of, seen_as, write_picture
from robustseg.synthesis.paint import ClassColours, Settings, class_colours, generate, inpaint

TITLE = "Sandoval-Segura 2022: robust training, and the images that robust gradients make"
SEED = 0


def reproduce(
    study: Tier,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[str], None] = lambda step: None,
    on_batch: Callable[[Progress], None] = lambda progress: None,
) -> list[Finding]:
    """Run what is not there yet, then write `tables.md` and `verdicts.json`.

    Args:
        study: the tier. folder: of networks, records, measures and pictures.
        device: where to run. on_step: told of each step. on_batch: called after every batch.

    Returns:
        The claims with their verdicts.

    Raises:
        RobustsegError: data or a network is missing, or the folder holds a training under other conditions.
    """
    work = _Work(study, folder, device)
    work.pretrain(on_step)
    for spec in (None, study.weak, study.strong):
        on_step(f"measure {len(ROLES)} networks: {spec or 'clean'}")
        work.measure(spec, on_batch)
    for kind, make in work.kinds.items():
        for who in work.painters(kind):
            on_step(f"{kind}: {ROLES.get(who, who)}")
            work.collect(kind, who, make, on_batch)
    on_step("pictures")
    work.draw_panels()
    return conclude(study, folder)


def conclude(study: Tier, folder: Path) -> list[Finding]:
    """Tables and verdicts from the records and measures of a folder, written there; nothing is run."""
    specs = {spec_of(study.networks[role], folder, role): role for role in ROLES}
    data = api.data(study.data).spec
    known = read_records(folder)
    records = {
        (specs[r.network], r.perturbation): r
        for r in known
        if r.network in specs and r.data == data and r.source == r.network
    }
    latest = {(m.kind, m.who, m.image): m for m in read_measures(folder / "measures.jsonl")}
    weak, strong = (api.perturbation(spec).spec for spec in (study.weak, study.strong))
    found = Evidence(records, tuple(latest.values()), weak, strong)
    about = {
        "tier": study.name,
        "protocol": study.protocol,
        **{ROLES[role]: spec for spec, role in specs.items()},
        "judge": study.judge,
        "holes": _said(study.fill),
        "scenes": _said(study.draw),
        "commits": ", ".join(sorted({r.commit or "?" for r in known} | {m.commit or "?" for m in latest.values()})),
        "dates": ", ".join(sorted({r.started[:10] for r in known})),
    }
    claims = findings(found)
    write_study(folder, title=TITLE, about=about, tables=tables(found), findings=claims)
    return claims


def costs(study: Tier, folder: Path, *, device: str = "cpu") -> list[Cost]:
    """What `reproduce` would take, judged by one image and two steps; networks that are not trained yet are not judged."""
    work = _Work(study, folder, device)
    found = [Cost(f"train {ROLES[role]}", float("nan")) for role in untrained(study.networks, folder)]
    if found:
        return found
    for spec in (None, study.weak, study.strong):
        found.append(Cost(f"measure {len(ROLES)} networks: {spec or 'clean'}", work.try_measuring(spec)))
    for kind, make in work.kinds.items():
        for who in work.painters(kind):
            found.append(Cost(f"{kind}: {ROLES.get(who, who)}", work.try_collecting(kind, who, make)))
    return found


def _said(settings: Settings) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(settings).items() if value is not None)


def hole(labels: Tensor, image_id: str) -> Tensor:
    """A hole for labels `[h, w]`: a third high and wide, at the first of 20 places drawn for this image where nine tenths are
    labelled, else where most are."""
    height, width = labels.shape
    tall, wide = height // 3, width // 3
    rng = ImageRng(SEED, [image_id], "hole")
    best, most = torch.zeros_like(labels, dtype=torch.bool), -1.0
    for _ in range(20):
        down, right = rng.uniform((2,), torch.zeros(1))[0].tolist()
        mask = torch.zeros_like(best)
        top, left = int(down * (height - tall + 1)), int(right * (width - wide + 1))
        mask[top : top + tall, left : left + wide] = True
        share = float((labels[mask] != IGNORE).float().mean())
        if share > most:
            best, most = mask, share
        if share >= 0.9:
            break
    return best


class Made(NamedTuple):
    """What was made of a batch: pictures (none of gradients), values by name `[b]`, and for whom to count."""

    images: Tensor | None
    values: dict[str, Tensor]
    target: Tensor | None


Maker = Callable[[str, Batch, Settings], Made]


class _Work:
    """The networks and data of one run, built when they are needed."""

    def __init__(self, study: Tier, folder: Path, device: str):
        self.study, self.folder, self.device = study, make_folder(folder), device
        self._networks: dict[str, Network] = {}
        self._colours: ClassColours | None = None
        self.kinds: dict[str, Maker] = {"gradients": self.look, "inpaint": self.fill, "generate": self.draw}

    def data(self, spec: str, count: int | None = None) -> Dataset:
        opened = api.data(spec)
        return Resized(Spread(opened, count) if count else opened, self.study.size)

    def shown(self, kind: str) -> Dataset:
        """The images that a kind is made of."""
        return self.data(self.study.data, self.study.maps if kind == "generate" else self.study.holes)

    @property
    def conditions(self) -> Conditions:
        return Conditions(seed=SEED, batch_size=self.study.batch_size, precision=self.study.passes)

    @staticmethod
    def painters(kind: str) -> tuple[str, ...]:
        """Whose work of this kind is measured."""
        return tuple(ROLES) if kind == "gradients" else (*ROLES, START, ORIGINAL)

    def pretrain(self, on_step: Callable[[str], None]) -> None:
        where = {"device": self.device, "precision": self.study.precision}
        pretrain(self.study.networks, self.folder, holdout=self.data(self.study.choose), on_step=on_step, **where)

    def network(self, role: str) -> Network:
        """A network by its role; the judge stands in where no network is asked."""
        role = role if role in ROLES else "judge"
        if role not in self._networks:
            given = self.study.judge if role == "judge" else self.study.networks[role]
            self._networks[role] = api.network(buildable(given, self.folder, role)).to(self.device)
        return self._networks[role]

    def measure(self, spec: str | None, on_batch: Callable[[Progress], None]) -> None:
        networks = [self.network(role) for role in ROLES]
        attack = api.perturbation(spec) if spec else None
        options: dict[str, Any] = {"folder": self.folder, "panels": 0, "on_batch": on_batch}
        evaluate(networks, self.data(self.study.data), attack, conditions=self.conditions, **options)

    def try_measuring(self, spec: str | None) -> float:
        """Seconds, judged by one image; 0 where it is there."""
        networks, data = [self.network(role) for role in ROLES], self.data(self.study.data)
        attack = api.perturbation(spec) if spec else None
        wanted = {(n.spec, attack.spec if attack else "clean") for n in networks}
        there = read_records(self.folder) if (self.folder / "records.jsonl").is_file() else []
        if wanted <= {(r.network, r.perturbation) for r in there}:
            return 0.0
        return sum(c.seconds for c in plan(networks, data, attack, conditions=replace(self.conditions, batch_size=1)))

    def settings(self, kind: str, who: str) -> Settings:
        own = self.study.draw if kind == "generate" else self.study.fill
        return replace(own, steps=1, step=0.0) if who in (START, ORIGINAL) else own

    def collect(self, kind: str, who: str, make: Maker, on_batch: Callable[[Progress], None]) -> None:
        """Measure what is not there yet, batch by batch."""
        data, settings, about = self.shown(kind), self.settings(kind, who), self.about(kind, who)
        there = {m.key for m in read_measures(self.folder / "measures.jsonl")}
        done = 0
        for batch in batches(data, self.study.batch_size):
            wanted = [Measure(kind, who, image, about, {}) for image in batch.ids]
            if not all(m.key in there and self.pictured(m) for m in wanted):
                self.keep(wanted, make(who, batch.to(self.device), settings))
            done += len(batch.ids)
            on_batch(Progress(f"{kind}, {ROLES.get(who, who)}", who, done, len(data)))

    def try_collecting(self, kind: str, who: str, make: Maker) -> float:
        """Seconds, judged by one image and two steps; 0 where it is there."""
        data, about, settings = self.shown(kind), self.about(kind, who), self.settings(kind, who)
        there = {m.key for m in read_measures(self.folder / "measures.jsonl")}
        if all(Measure(kind, who, image, about, {}).key in there for image in data.ids):
            return 0.0
        start = time.perf_counter()
        make(who, next(batches(data, 1)).to(self.device), replace(settings, steps=min(2, settings.steps)))
        return (time.perf_counter() - start) * len(data) * max(1, settings.steps / 2)

    def about(self, kind: str, who: str) -> dict[str, Any]:
        """What decides a measure."""
        network = self.network(who)
        return {
            "network": network.spec,
            "weights": digest(network),
            "judge": self.study.judge,
            "settings": "" if kind == "gradients" else _said(self.settings(kind, who)),
            "data": self.study.data,
            "size": list(self.study.size),
            "seed": SEED,
        }

    def picture(self, kind: str, who: str, image: str) -> Path:
        return self.folder / "panels" / kind / who / f"{image}.png"

    def pictured(self, measure: Measure) -> bool:
        return measure.kind == "gradients" or self.picture(measure.kind, measure.who, measure.image).is_file()

    def keep(self, wanted: Sequence[Measure], made: Made) -> None:
        with sole_writer(self.folder):
            for index, measure in enumerate(wanted):
                counts = None
                if made.images is not None and made.target is not None:
                    path = self.picture(measure.kind, measure.who, measure.image)
                    make_folder(path.parent)
                    write_picture(path, Image.fromarray(picture_of(made.images[index])))
                    one = slice(index, index + 1)
                    counts = judged(self.network("judge"), made.images[one], made.target[one], (measure.image,))
                values = {name: float(value[index]) for name, value in made.values.items()}
                append_line(
                    self.folder / "measures.jsonl",
                    replace(measure, values=values, counts=counts, commit=commit()).to_json(),
                )

    def look(self, who: str, batch: Batch, settings: Settings) -> Made:
        """Input gradients toward the labels, plain and smooth."""
        values = {}
        for kind in ("plain", "smooth"):
            rng = ImageRng(SEED, batch.ids, "smooth")
            maps = input_gradients(self.network(who), batch.images, batch.labels, kind=kind, rng=rng)
            values[f"{kind} share"] = high_frequency_share(maps)
            values[f"{kind} edges"] = edge_agreement(maps, batch.images)
        return Made(None, values, None)

    def fill(self, who: str, batch: Batch, settings: Settings) -> Made:
        """Holes filled toward the ground truth, beside what was there."""
        masks = holes(batch).to(batch.images.device)
        target, network, images = batch.labels.where(masks, IGNORE), self.network(who), batch.images
        values: dict[str, Tensor] = {}
        if who != ORIGINAL:
            rng = ImageRng(SEED, batch.ids, "inpaint")
            done = inpaint(network, batch.images, masks, target, settings=settings, rng=rng)
            images = done.best
            if who in ROLES:
                values = {"loss": done.losses.amin(0), "seen": seen_as(network, images, target)}
        return Made(images, {**values, **fidelity(images, batch.images, masks)._asdict()}, target)

    def draw(self, who: str, batch: Batch, settings: Settings) -> Made:
        """Scenes drawn from the ground truth, starting from the colours of its classes."""
        if self._colours is None:
            self._colours = class_colours(self.data(self.study.choose))
        network, images = self.network(who), batch.images
        values: dict[str, Tensor] = {}
        if who != ORIGINAL:
            rng = ImageRng(SEED, batch.ids, "generate")
            done = generate(network, batch.labels, colours=self._colours, settings=settings, rng=rng)
            images = done.best
            if who in ROLES:
                values = {"loss": done.losses.amin(0), "seen": seen_as(network, images, batch.labels)}
        values["variation"] = total_variation(images) / total_variation(batch.images)
        return Made(images, values, batch.labels)

    def draw_panels(self) -> None:
        """Sheets of holes, scenes and gradients, the classes as each network draws them, and the blind pairs."""
        folder = self.folder / "panels"
        for kind in ("inpaint", "generate"):
            data = self.shown(kind)
            for index, name in enumerate(data.ids):
                batch = Batch.of([data[index]])
                pictures = {who: self.picture(kind, who, name) for who in (*ROLES, START, ORIGINAL)}
                masks = holes(batch) if kind == "inpaint" else None
                sheet = comparison(batch, masks, pictures, self.network("judge"))
                write_picture(folder / f"{kind}-{name}.png", sheet)
        data = self.shown("gradients")
        batch = Batch.of([data[index] for index in range(min(4, len(data)))]).to(self.device)
        write_picture(folder / "gradients.png", gradient_sheet({r: self.network(r) for r in ROLES}, batch))
        pairs = [
            [self.picture("inpaint", who, name) for who in ("standard", "adversarial")]
            for name in self.shown("inpaint").ids
        ]
        blind_pairs(folder / "blind", pairs, key=folder / "blind-key.json")
        for role in ROLES if self.study.class_steps else ():
            path = folder / f"classes-{role}.png"
            if not path.is_file():
                write_picture(path, self.classes(role))

    def classes(self, role: str) -> Image.Image:
        """What each class looks like to a network."""
        network = self.network(role)
        count = len(network.label_space)
        target = torch.arange(count, device=self.device).view(-1, 1, 1).expand(-1, *self.study.size).contiguous()
        settings = replace(self.study.draw, steps=self.study.class_steps)
        rng = ImageRng(SEED, [f"class_{k}" for k in range(count)])
        return class_sheet(network, generate(network, target, settings=settings, rng=rng))


def holes(batch: Batch) -> Mask:
    """The hole of each image of a batch, bool `[b, h, w]`."""
    return torch.stack([hole(labels, name) for labels, name in zip(batch.labels.cpu(), batch.ids, strict=True)])


__all__ = ["Cost", "Tier", "conclude", "costs", "hole", "holes", "reproduce", "tier"]
