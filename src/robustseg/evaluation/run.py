"""Measure networks under a perturbation: images in, records out.

One pass over the data, one batch in memory. A run with a folder appends what it counted batch by batch and goes on
where it was cut, over the same batches, to the same counts bit for bit on a CPU.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, overload

import numpy as np
import torch
from torch import Tensor

from robustseg.core import registry
from robustseg.core.code import code_of
from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.files import append_line, make_folder, read_lines, sole_writer, write_whole
from robustseg.core.folders import require_own
from robustseg.core.labels import IGNORE
from robustseg.core.provenance import commit, device_name, digest, peak_memory, sha256, versions
from robustseg.core.random import ImageRng
from robustseg.core.schema import fields_of, read_as
from robustseg.core.types import Batch, Dataset, Monitor, Network, Perturbation, device_of, frozen, unchanged
from robustseg.datasets.views import Content, batches, content, read
from robustseg.evaluation.flags import doubts, label_doubts, repeats_not
from robustseg.evaluation.memory import memory_checked
from robustseg.evaluation.probes import Look, answer, inner, look, relative_change
from robustseg.networks.fast import fast
from robustseg.networks.passes import counted
from robustseg.results import metrics
from robustseg.results.current import current, distinct
from robustseg.results.panels import Panel, quantised, save_panel
from robustseg.results.record import Counts, Record, measurement_key, record_lines
from robustseg.results.summary import clean_of, summary, worst_images

PRECISIONS = ("float32", "float64", "bfloat16")


class Progress(NamedTuple):
    """Where a pass over the data stands: which perturbation, and images done of all."""

    perturbation: str
    source: str
    done: int
    total: int


class Cost(NamedTuple):
    """What one perturbation will take: passes of one image each, seconds, and the most memory so far in bytes."""

    perturbation: str
    source: str
    forwards: int
    backwards: int
    seconds: float
    memory: int


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What decides the numbers of a run besides network, data and perturbation.

    Args:
        seed: of every draw.
        batch_size: the most images at a time.
        precision: of the perturbation's passes: `float32`, `float64` (all passes), or `bfloat16` (autocast while
            perturbing; what is counted always comes from a float32 pass).
    """

    seed: int = 0
    batch_size: int = 4
    precision: str = "float32"

    @property
    def dtype(self) -> torch.dtype:
        """Of the images."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise RobustsegError(f"expected a precision of {', '.join(PRECISIONS)}, got '{self.precision}'")
        if self.batch_size < 1:
            raise RobustsegError(f"expected at least one image a batch, got {self.batch_size}; try --batch-size 4")
        if not 0 <= self.seed < registry.LARGEST:
            raise RobustsegError(f"expected a seed from 0 to 2**63 - 1, got {self.seed}; try --seed 0")


@overload
def evaluate(networks: Network, data: Dataset, perturbation: Perturbation | None = ..., source: Network | None = ..., **options: Any) -> Record: ...  # fmt: skip
@overload
def evaluate(networks: Sequence[Network], data: Dataset, perturbation: Perturbation | None = ..., source: Network | None = ..., **options: Any) -> list[Record]: ...  # fmt: skip


def evaluate(  # type: ignore[misc]  # the overloads say **options for brevity
    networks: Network | Sequence[Network],
    data: Dataset,
    perturbation: Perturbation | None = None,
    source: Network | None = None,
    *,
    conditions: Conditions | None = None,
    folder: str | Path | None = None,
    panels: int = 2,
    on_batch: Callable[[Progress], None] = lambda progress: None,
) -> Record | list[Record]:
    """Perturb the images once against a source network and measure every listed network on them.

    Args:
        networks: one network (gives one record) or several (a list, in order), on the device to use.
        data: labelled images in the networks' label space; read one batch at a time.
        perturbation: what moves the images; None measures them as they are.
        source: the network that the perturbation sees; None: each network is its own source.
        conditions: seed, batch size and precision.
        folder: appends to `records.jsonl` and rewrites `summary.json` there; what is recorded already is not run
            again, and a cut run goes on. None keeps nothing.
        panels: how many of the images that lose most are kept as pictures in the folder.
        on_batch: called after every batch.

    Returns:
        One `Record` a network.

    Raises:
        LabelSpaceMismatch: a network and the data do not speak of the same classes.
        RobustsegError: the data is empty, the perturbation gave something that is no image, another run writes into the
            folder, or the folder holds the summary of something else.
    """
    if isinstance(networks, str) or isinstance(data, str) or isinstance(perturbation, str):
        raise RobustsegError("expected built things, got a spec; try rs.network(…), rs.data(…), rs.perturbation(…)")
    listed = [networks] if isinstance(networks, Network) else list(networks)
    with unchanged(*listed, *filter(None, [source])):
        jobs = _jobs(listed, data, perturbation, source, conditions or Conditions())
        place = None if folder is None else make_folder(Path(folder))
        # the targets of all jobs, in order, are the networks in order
        with sole_writer(place) if place else nullcontext():
            if place:
                require_own(place / "records.jsonl", ("summary.json",))
            result = [record for job in jobs for record in _run(job, place, panels, on_batch)]
    return result[0] if isinstance(networks, Network) else result


def plan(
    networks: Sequence[Network],
    data: Dataset,
    perturbation: Perturbation | None = None,
    source: Network | None = None,
    *,
    conditions: Conditions | None = None,
    folder: str | Path | None = None,
) -> list[Cost]:
    """What `evaluate` would take, from its first batch, run twice and thrown away; one `Cost` a source.

    Args:
        networks, data, perturbation, source, conditions: as for `evaluate`.
        folder: where the run would be kept; what is recorded there costs nothing.
    """
    with unchanged(*networks, *filter(None, [source])):
        return list(_costs(_jobs(list(networks), data, perturbation, source, conditions or Conditions()), folder))


def _costs(jobs: Sequence["_Job"], folder: str | Path | None) -> Iterator[Cost]:
    for job in jobs:
        if folder is not None and all(job.records_in(Path(folder))):
            yield Cost(job.perturbation.spec, job.source.spec, 0, 0, 0.0, 0)
            continue
        for _ in range(2):  # the first pass also chooses kernels and fills caches
            part = _next_part(job, batches(job.data, job.conditions.batch_size))
        if part is None:
            continue
        factor = len(job.data) / len(part.counts[0].ids)
        forwards, backwards = (round(n * factor) for n in (part.forwards, part.backwards))
        yield Cost(job.perturbation.spec, job.source.spec, forwards, backwards, part.seconds * factor, peak_memory())


def recorded(
    networks: Sequence[Network],
    data: Dataset,
    perturbation: Perturbation | None = None,
    source: Network | None = None,
    *,
    conditions: Conditions | None = None,
    folder: str | Path,
) -> bool:
    """Whether `evaluate` with these arguments finds all its records in the folder and has nothing to do."""
    with unchanged(*networks, *filter(None, [source])):
        jobs = _jobs(list(networks), data, perturbation, source, conditions or Conditions())
    return all(record for job in jobs for record in job.records_in(Path(folder)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """One pass over the data: one source, its targets, one perturbation."""

    source: Network
    targets: tuple[Network, ...]
    data: Dataset
    perturbation: Perturbation
    conditions: Conditions
    content: Content
    digests: dict[int, "_Digests"]

    @property
    def networks(self) -> list[Network]:
        return list({id(n): n for n in (self.source, *self.targets)}.values())

    @functools.cached_property
    def guide(self) -> Network:
        """The source as a fast copy, which the perturbation sees; what is counted comes from the targets themselves."""
        return fast(self.source) if getattr(self.perturbation, "sees_network", True) else self.source

    @functools.cached_property
    def headers(self) -> dict[int, dict[str, Any]]:
        """For each target the fields of a record that are known before the run, and by which a finished one is found."""
        return {id(target): self._header(target) for target in self.targets}

    def _header(self, target: Network) -> dict[str, Any]:
        files = [
            f for thing in (self.source, target, self.data, self.perturbation) for f in getattr(thing, "files", ())
        ]
        return {
            "network": target.spec,
            "weights": self.digests[id(target)].weights,
            "code": self.digests[id(target)].code,
            "source": self.source.spec,
            "source_weights": self.digests[id(self.source)].weights,
            "source_code": code_of(self.source, self.perturbation),
            "content": self.content.digest,
            "data": self.data.spec,
            "perturbation": registry.describe(self.perturbation.spec).spec,
            "files": {Path(file).name: sha256(file) for file in files},
            "size": self.data.size,
            **dataclasses.asdict(self.conditions),
        }

    @property
    def name(self) -> str:
        """Of the progress file."""
        return hashlib.sha256("".join(self.key(target) for target in self.targets).encode()).hexdigest()[:16]

    def key(self, target: Network) -> str:
        """`Record.key` of what this job will record."""
        return measurement_key(self.headers[id(target)], self.data.ids)

    def records_in(self, folder: Path | None) -> list[Record | None]:
        """The finished record of each target in a folder, where it is there."""
        path = folder and folder / "records.jsonl"
        if path is None or not path.is_file():
            return [None] * len(self.targets)
        written = path.stat()
        known = _by_key(path, written.st_mtime_ns, written.st_size)
        return [known.get(self.key(target)) for target in self.targets]


@functools.lru_cache(maxsize=4)
def _by_key(path: Path, *_: int) -> dict[str, Record]:
    """The records of a file by their keys, the first of equals; the file is read again only after it was written."""
    found: dict[str, Record] = {}
    for record in record_lines(path, torn=True):
        found.setdefault(record.key, record)
    return found


def _jobs(
    networks: Sequence[Network],
    data: Dataset,
    perturbation: Perturbation | None,
    source: Network | None,
    conditions: Conditions,
) -> list[_Job]:
    if not isinstance(data, Dataset):
        raise RobustsegError(
            f"expected a data set, got a {type(data).__name__}; try a subclass of robustseg.core.types.Dataset, "
            "which says what is missing and brings the rest"
        )
    if not networks or not len(data):
        raise RobustsegError(f"expected at least one network and one image, got {len(networks)} and {len(data)}")
    for network in [*networks, *([source] if source else [])]:
        network.label_space.require_same(data.label_space, mine=network.spec, theirs=data.spec)
    perturbation = perturbation or registry.build("perturbation", "clean")
    if conditions.precision == "float64":
        with torch.no_grad():  # so that copies of TorchScript modules have parameters of their own
            doubled = {id(n): copy.deepcopy(n).double() for n in [*networks, *([source] if source else [])]}
        networks, source = [doubled[id(n)] for n in networks], source and doubled[id(source)]
    if perturbation.spec == "clean":
        source = None
    everybody = [*networks, *([source] if source else [])]
    digests = {id(n): _Digests(digest(n), code_of(n)) for n in everybody}
    _require_distinct(everybody, digests)
    shared = data, perturbation, conditions, content(data), digests
    if source is not None:
        return [_Job(source, tuple(networks), *shared)]
    return [_Job(network, (network,), *shared) for network in networks]


class _Digests(NamedTuple):
    """Of what a network computes with: its parameters and buffers, and the user's code."""

    weights: str
    code: str


def _require_distinct(networks: Sequence[Network], digests: dict[int, _Digests]) -> None:
    """Two networks that a report could not tell apart are refused."""
    known: dict[str, _Digests] = {}
    for network in networks:
        if known.setdefault(network.spec, digests[id(network)]) != digests[id(network)]:
            raise RobustsegError(
                f"expected different specs for different networks, got '{network.spec}' twice; "
                "try giving each a name: network.spec = 'before'"
            )


@torch.inference_mode(False)  # attacks need gradients, whatever mode the caller is in
def _run(job: _Job, folder: Path | None, panels: int, on_batch: Callable[[Progress], None]) -> list[Record]:
    job.headers  # noqa: B018  # digests are taken before anything is measured
    found = job.records_in(folder)
    progress = folder and make_folder(folder / "progress") / f"{job.name}.jsonl"
    if all(found) and not (progress and progress.is_file()):  # a progress file is left by a run cut while it ended
        finished = [record for record in found if record]
        if folder:
            _keep_present(folder, finished)
        return finished
    start, total = _begun(progress, job)
    done = len(total.counts[0].ids) if total else 0
    looks = [_looks(target, job) for target in job.targets]
    flags, first = [doubts(own) for own in looks], [own[0] for own in looks]
    del looks  # of one image, the logits are kept
    waiting = batches(job.data, job.conditions.batch_size, start=done)
    for part in iter(lambda: _next_part(job, waiting), None):
        images = range(done, done + len(part.counts[0].ids))
        job.content.require_same(job.data, images)
        if progress:
            append_line(progress, part.to_json())
        total = total + part if total else part
        done = images.stop
        on_batch(Progress(job.perturbation.spec, job.source.spec, done, len(job.data)))
    if total is None:
        raise RobustsegError(f"expected images in {job.data.spec}, got none")
    for index, target in enumerate(job.targets):
        flags[index] |= _seen_in_all(total, index) | {"not_clipped": _unclipped(job.perturbation)}
        flags[index]["random_output"] = bool(flags[index]["random_output"]) or _drifted(target, job, first[index])
    records = [_record(job, index, start, total, flags[index]) for index in range(len(job.targets))]
    if folder and progress:
        records = [known or record for record, known in zip(records, found, strict=True)]
        for record, known in zip(records, found, strict=True):
            if known is None:
                append_line(folder / "records.jsonl", record.to_json())
        everything = _keep_present(folder, records) or _summarised(folder)
        _keep_panels(job, records, everything, folder / "panels", panels)
        progress.unlink()
    return records


def _keep_present(folder: Path, records: list[Record]) -> list[Record]:
    """Write records again that a later state of networks, code or data has made stale: what they measured has come back.

    Returns all records of the folder; none where nothing had to be written.
    """
    written = (folder / "records.jsonl").stat()
    present = _current_keys(folder / "records.jsonl", written.st_mtime_ns, written.st_size)
    if all(record.key in present for record in records):
        return []
    for record in records:
        append_line(folder / "records.jsonl", record.to_json())
    return _summarised(folder)


@functools.lru_cache(maxsize=4)
def _current_keys(path: Path, *_: int) -> set[str]:
    return {record.key for record in current(list(record_lines(path, torn=True)))}


def _summarised(folder: Path) -> list[Record]:
    """All records of a folder, with its `summary.json` written from them."""
    everything = distinct(list(record_lines(folder / "records.jsonl", torn=True)))
    write_whole(folder / "summary.json", json.dumps(summary(everything), indent=1) + "\n")
    return everything


def _begun(progress: Path | None, job: _Job) -> tuple[dict[str, Any], "_Part | None"]:
    """How the run began and what it has counted: read from its progress file, or written there now."""
    lines = list(read_lines(progress, _begun_line, torn=True)) if progress and progress.is_file() else []
    start = lines[0] if lines else {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": commit()}
    if progress and not lines:
        append_line(progress, start)
    total = functools.reduce(operator.add, lines[1:]) if lines[1:] else None
    if progress and (not isinstance(start, dict) or (total and not total.begins(job))):
        raise RobustsegError(
            f"expected the batches of this run in {progress}, got others or not all; try removing that file, which starts the run again"
        )
    return start, total


class _Start(TypedDict):
    """When and by which code a run began."""

    started: str
    commit: str | None


def _begun_line(data: dict[str, Any]) -> "dict[str, Any] | _Part":
    """A line of a progress file: how the run began, or what a batch gave."""
    return _Part.from_json(data) if "counts" in data else read_as(_Start, data)


def _next_part(job: _Job, waiting: Iterator[Batch]) -> "_Part | None":
    """Read, perturb and count the next batch; None at the end."""
    job.guide  # noqa: B018  # made before the clock starts
    start = time.perf_counter()
    batch = next(waiting, None)
    if batch is None:
        return None
    part = _measure(job, batch)
    return dataclasses.replace(part, seconds=time.perf_counter() - start)


@dataclasses.dataclass(frozen=True)
class _Part:
    """What one batch gave: counts, scores and verdicts a target, and what it cost."""

    counts: list[Counts]
    scores: list[dict[str, list[float]]]
    verdicts: list[dict[str, list[str]]]
    seconds: float
    forwards: int
    backwards: int

    def to_json(self) -> dict[str, Any]:
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "counts": [c.to_json() for c in self.counts]}  # fmt: skip

    def begins(self, job: _Job) -> bool:
        """Whether this is of the first images of a job, in their order, and of all its targets."""
        done = tuple(job.data.ids[: len(self.counts[0].ids)]) if self.counts else ()
        alike = all(counts.ids == done for counts in self.counts)
        return alike and len(self.counts) == len(self.scores) == len(self.verdicts) == len(job.targets)

    def __add__(self, other: "_Part") -> "_Part":
        return _Part(
            [a + b for a, b in zip(self.counts, other.counts, strict=True)],
            [{name: a[name] + b[name] for name in a} for a, b in zip(self.scores, other.scores, strict=True)],
            [{name: a[name] + b[name] for name in a} for a, b in zip(self.verdicts, other.verdicts, strict=True)],
            self.seconds + other.seconds,
            self.forwards + other.forwards,
            self.backwards + other.backwards,
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "_Part":
        return cls(**fields_of(cls, data))


def _measure(job: _Job, batch: Batch) -> _Part:
    """Perturb one batch and count every target on it; the time is for the caller to take."""
    device = device_of(job.source)
    batch = batch.to(device)
    images = batch.images.to(job.conditions.dtype, memory_format=torch.channels_last)
    with frozen(*job.networks), memory_checked(job.guide), counted([*job.networks, job.guide]) as passes:
        perturbed = _perturb(job, images, batch)
        counts, scores, verdicts = [], [], []
        for target in job.targets:
            after, suspicion, verdict = _watch(target, perturbed)
            before = after if perturbed is images else _predict(target, images)
            labels = batch.labels.cpu().numpy()
            counts.append(metrics.count(labels, after, batch.ids, len(job.data.label_space)))
            own = {"agreement": _agreement(labels, before, after), "unpredicted": _unpredicted(after)}
            scores.append({**_distances(perturbed, images), **own, **suspicion})
            verdicts.append(verdict)
    return _Part(counts, scores, verdicts, 0.0, passes.forwards, passes.backwards)


def _perturb(job: _Job, images: Tensor, batch: Batch) -> Tensor:
    rng = ImageRng(job.conditions.seed, batch.ids)
    low = (
        torch.autocast(images.device.type, torch.bfloat16) if job.conditions.precision == "bfloat16" else nullcontext()
    )
    with low:
        perturbed = job.perturbation(job.guide, images, batch.labels, rng=rng)
    if perturbed.shape != images.shape or perturbed.dtype != images.dtype:
        raise ShapeError(
            f"expected {images.dtype} images {tuple(images.shape)} from {job.perturbation.spec}, "
            f"got {perturbed.dtype} {tuple(perturbed.shape)}; try robustseg.testing.check_perturbation on it"
        )
    lowest, highest = float(perturbed.min()), float(perturbed.max())
    if not math.isfinite(highest - lowest):
        raise RobustsegError(
            f"expected finite images from {job.perturbation.spec}, got NaN or infinity; try smaller steps, or see whether "
            "the logits of the network are finite: the flag not_finite of a clean run"
        )
    if (lowest < 0 or highest > 1) and not _unclipped(job.perturbation):
        raise RobustsegError(
            f"expected images in [0, 1] from {job.perturbation.spec}, got {lowest:g} to {highest:g}; try clamping them"
        )
    return perturbed


def _unclipped(perturbation: Perturbation) -> bool:
    """Whether the spec asks for the papers' variant that leaves [0, 1]; the record then carries a flag."""
    return getattr(perturbation, "arguments", {}).get("clip") is False


def _predict(network: Network, images: Tensor) -> np.ndarray:
    with torch.inference_mode():
        predictions = network.predict(images.to(device_of(network)))
    _require_size(network, predictions.shape, images)
    return predictions.cpu().numpy()


class _Watched(NamedTuple):
    labels: np.ndarray
    suspicion: dict[str, list[float]]
    verdicts: dict[str, list[str]]


def _watch(network: Network, images: Tensor) -> _Watched:
    """What a network answers, and what its monitor says of each image, if it is a monitor."""
    if not isinstance(network, Monitor):
        return _Watched(_predict(network, images), {}, {})
    with torch.inference_mode():
        found = network.watch(images.to(device_of(network)))
    suspicion = {name: values.tolist() for name, values in found.suspicion.items()}
    said = {"attacked": found.attacked, "failed": [", ".join(members) for members in found.failed]}
    return _Watched(found.labels.cpu().numpy(), suspicion, said)


def _require_size(network: Network, shape: Sequence[int], images: Tensor) -> None:
    wanted = (len(images), *images.shape[-2:])
    if tuple(shape) != wanted:
        raise ShapeError(
            f"expected predictions {wanted} of {network.spec}, got {tuple(shape)}; "
            "try robustseg.adapt, which brings logits to the input size"
        )


def _distances(perturbed: Tensor, images: Tensor) -> dict[str, list[float]]:
    change = (perturbed - images).double().flatten(1)
    return {"rms": change.square().mean(1).sqrt().tolist(), "linf": change.abs().amax(1).tolist()}


def _agreement(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[float]:
    """Share of the labelled pixels of each image that keep their prediction; NaN where none is labelled."""
    valid, same = labels != IGNORE, (before == after) & (before != IGNORE)
    return [float(s[v].mean()) if v.any() else float("nan") for v, s in zip(valid, same, strict=True)]


def _unpredicted(predictions: np.ndarray) -> list[float]:
    """Share of the pixels of each image without a prediction: the network gave NaN or infinity."""
    shares: list[float] = (predictions == IGNORE).mean((1, 2)).tolist()
    return shares


def _record(job: _Job, index: int, start: dict[str, Any], total: _Part, flags: dict[str, Any]) -> Record:
    scores = {n: [math.nan if v is None else v for v in values] for n, values in total.scores[index].items()}
    return Record(
        label_space=job.data.label_space,
        counts=total.counts[index],
        scores=scores,
        verdicts=total.verdicts[index],
        flags=flags,
        device=device_name(device_of(job.source)),
        versions=versions(),
        seconds=total.seconds,
        forwards=total.forwards,
        backwards=total.backwards,
        **start,
        **job.headers[id(job.targets[index])],
    )


def _keep_panels(job: _Job, records: list[Record], everything: list[Record], folder: Path, number: int) -> None:
    """Perturb the images that lost most once more, and keep what they look like."""
    if job.perturbation.spec == "clean":
        return
    for target, record in zip(job.targets, records, strict=True):
        clean = clean_of(record, everything)
        for drop in worst_images(record, clean, number) if clean else []:
            batch = Batch.of([read(job.data, drop.position)]).to(device_of(job.source))
            images = batch.images.to(job.conditions.dtype)
            with frozen(*job.networks):
                perturbed = _perturb(job, images, batch)
                before, after = _predict(target, images), _predict(target, perturbed)
            pictures = [quantised(i[0].float().cpu().numpy()) for i in (images, perturbed)]
            maps = [m.astype(np.uint8) for m in (batch.labels[0].cpu().numpy(), before[0], after[0])]
            panel = Panel(drop.id, record.key, record.label_space, *pictures, *maps)
            save_panel(folder, f"{record.key}-{drop.position}", panel)


def _looks(target: Network, job: _Job) -> list[Look]:
    """At the first, the middle and the last image, as they are."""
    places = sorted({0, len(job.data) // 2, len(job.data) - 1})
    return [look(target, _probed(target, job, at), number=n) for n, at in enumerate(places)]


def _probed(target: Network, job: _Job, index: int) -> Batch:
    batch = Batch.of([read(job.data, index)]).to(device_of(target))
    return dataclasses.replace(batch, images=batch.images.to(job.conditions.dtype))


def _drifted(target: Network, job: _Job, first: Look) -> bool:
    """Whether the first image gets other logits after the run than before it."""
    with frozen(target):
        now = answer(target, inner(_probed(target, job, 0)))
    return repeats_not(first, relative_change(first.logits, now))


def _seen_in_all(total: _Part, index: int) -> dict[str, Any]:
    """The flags that all images decide: what the probes saw of `not_finite` stays where no image of the run has any."""
    counts, lost = total.counts[index], np.asarray(total.scores[index]["unpredicted"]) > 0
    return label_doubts(counts) | ({"not_finite": float(lost.mean())} if lost.any() else {})
