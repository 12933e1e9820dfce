"""What a run leaves behind, as plain data: counts and records. No torch.

Everything after the counting is plain: a `Record` is one line of `records.jsonl`, and every figure of a report is
derived from its `Counts` later. NaN is "absent" and is written as `null`, never as 0.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np

from robustseg.core.budget import Budget, as_255
from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.core.files import read_lines
from robustseg.core.labels import LabelSpace
from robustseg.core.registry import describe
from robustseg.core.schema import Amount, Between, Count, fields_of, read_as


@dataclass(frozen=True)
class Counts:
    """Pixel counts over a set of images: add with `+`, derive every metric later (`robustseg.results.metrics`).

    Args:
        ids: the image ids, in order.
        confusion: int64 `[k, k + 1]`, row = label, column = prediction; the last column is "void or another class".
        tp, fp, fn: int64 `[n, k]`, per image and class, over labelled pixels only.
    """

    ids: tuple[str, ...]
    confusion: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    def __post_init__(self) -> None:
        k, n = self.confusion.shape[0], len(self.ids)
        if self.confusion.shape != (k, k + 1) or any(a.shape != (n, k) for a in (self.tp, self.fp, self.fn)):
            raise ShapeError(
                f"expected confusion [k, k + 1] and tp, fp, fn [{n}, k], got {self.confusion.shape}, "
                f"{self.tp.shape}, {self.fp.shape}, {self.fn.shape}; try robustseg.results.metrics.count"
            )

    @classmethod
    def empty(cls, classes: int) -> "Counts":
        """Counts of no image at all: the zero of `+`."""
        none = np.zeros((0, classes), np.int64)
        return cls((), np.zeros((classes, classes + 1), np.int64), none, none, none)

    def __add__(self, other: "Counts") -> "Counts":
        if self.confusion.shape != other.confusion.shape:
            raise ShapeError(
                f"expected counts over the same number of classes, got {self.confusion.shape[0]} "
                f"and {other.confusion.shape[0]}; try counts of one label space"
            )
        return Counts(
            self.ids + other.ids,
            self.confusion + other.confusion,
            np.concatenate([self.tp, other.tp]),
            np.concatenate([self.fp, other.fp]),
            np.concatenate([self.fn, other.fn]),
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Counts)
            and self.ids == other.ids
            and all(
                np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.name != "ids"
            )
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    def to_json(self) -> dict[str, Any]:
        """Lists of ints, for one line of JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("confusion", "tp", "fp", "fn")}
        return {"ids": list(self.ids), **arrays}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Counts":
        """The inverse of `to_json`.

        Raises:
            RobustsegError: it is something else, or the counts do not add up.
        """
        ids = read_as(tuple[str, ...], data.get("ids"), "counts.ids")
        if len(set(ids)) != len(ids):
            raise RobustsegError("expected each image once in counts.ids, got one twice")
        confusion = data.get("confusion")
        k, n = len(confusion) if isinstance(confusion, list) else 0, len(ids)
        rows = {name: _counted(data.get(name), n, k, f"counts.{name}") for name in ("tp", "fp", "fn")}
        found = cls(ids, _counted(confusion, k, k + 1, "counts.confusion"), **rows)
        tp, fp, fn = (rows[name].sum(0) for name in ("tp", "fp", "fn"))
        whole, right = found.confusion, found.confusion.diagonal()
        if not all(map(np.array_equal, (tp, tp + fn, tp + fp), (right, whole.sum(1), whole[:, :k].sum(0)))):
            raise RobustsegError("expected counts that add up to the confusion, got others")
        return found


def _counted(data: Any, rows: int, columns: int, place: str) -> np.ndarray:
    """Lists of pixel counts as int64 `[rows, columns]`."""
    lists: list[Any] = data if isinstance(data, list) else [None]
    if len(lists) != rows or any(not isinstance(row, list) or len(row) != columns for row in lists):
        raise RobustsegError(f"expected {rows} lists of {columns} whole numbers in {place}, got something else")
    if any(type(value) is not int or not 0 <= value < 2**53 for row in lists for value in row):
        raise RobustsegError(f"expected numbers of pixels in {place}, got something else")
    found = np.array(lists, np.int64).reshape(rows, columns)
    if found.sum(dtype=np.float64) >= 2**53:
        raise RobustsegError(f"expected fewer than 2^53 pixels in {place}, got more")
    return found


SCHEMA = 3
"""The version of a record's fields. Records of earlier versions are migrated when they are read; their lines have no digest."""

FIRST = (
    *("network", "source", "data", "perturbation", "label_space", "counts", "weights", "source_weights", "scores"),
    *(
        "verdicts",
        "flags",
        "files",
        "seed",
        "batch_size",
        "size",
        "precision",
        "device",
        "versions",
        "commit",
        "started",
    ),
    *("seconds", "forwards", "backwards"),
)
"""The fields that records of schema 1 have, and all later ones."""


KINDS = ("", "clean", "noise", "attack", "corruption")
Side = Annotated[int, Between(1, 2**31)]


class _Budget(TypedDict):
    norm: str
    eps: float


IDENTITY = (
    "network",
    "weights",
    "source",
    "source_weights",
    "data",
    "perturbation",
    "files",
    "size",
    "seed",
    "batch_size",
    "precision",
)
DIGESTS = ("content", "code", "source_code")
"""The fields of a record that decide its numbers, besides the images' ids; `DIGESTS` where they are known."""


def measurement_key(fields: Mapping[str, Any], ids: Sequence[str]) -> str:
    """A short name for a measurement from its `IDENTITY` and `DIGESTS` fields and the image ids."""
    known = [fields[name] for name in IDENTITY] + [{name: fields[name]} for name in DIGESTS if fields.get(name)]
    return hashlib.sha256(json.dumps([known, list(ids)], sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """One network measured under one perturbation over one data set: enough to repeat it and to derive every figure.

    Args:
        network, source, data, perturbation: specs; `source` made the perturbation, `network` was measured on it.
        perturbation_name, kind, arguments, budget: what the perturbation's spec says, as data; see
            `core.registry.Description`. `kind` is `clean`, `noise`, `attack`, or
            `corruption` (of other packages).
        weights, source_weights: digests of what the two networks computed with (`core.provenance.digest`).
        content: digest of the images and masks that were read; empty in records of schema 1, which are unverified.
        code, source_code: digests of the user's code that the two networks ran (`core.provenance.code_digest`); empty
            where they run only installed packages.
        label_space: the classes of network and data.
        counts: the pixel counts.
        scores: per image, in the order of `counts.ids`: `rms`, `linf` (of the perturbation, images in [0, 1]),
            `agreement` (share of labelled pixels that keep their clean prediction), and what monitors add.
        verdicts: per image, what monitors said.
        flags: what was seen that makes the number doubtful, as name -> value; see `robustseg.evaluation.flags`.
        files: SHA-256 of each file that a spec names.
        seed, batch_size, size, precision, device, versions, commit, started: the conditions of the run.
        seconds: spent on the batches, reading included. forwards, backwards: passes, one image through one network
            each. All three are of the whole pass over the data, which the records of one source share.
        schema: the version of these fields.
    """

    network: str
    source: str
    data: str
    perturbation: str
    label_space: LabelSpace
    counts: Counts
    perturbation_name: str = ""
    kind: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    budget: Budget | None = None
    weights: str = ""
    source_weights: str = ""
    content: str = ""
    code: str = ""
    source_code: str = ""
    scores: dict[str, list[float]] = field(default_factory=dict)
    verdicts: dict[str, list[str]] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    batch_size: Side = 1
    size: tuple[Side, Side] | None = None
    precision: str = "float32"
    device: str = "cpu"
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    started: str = ""
    seconds: Amount = 0.0
    forwards: Count = 0
    backwards: Count = 0
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        said = describe(self.perturbation)
        if not said.kind and self.kind:  # as recorded, where the package that knows the name is not installed
            return
        kind = said.kind or ("attack" if self.backwards else "noise")
        read = {"perturbation": said.spec, "perturbation_name": said.name, "kind": kind, "budget": said.budget}
        for name, value in {**read, "arguments": dict(said.arguments)}.items():
            object.__setattr__(self, name, value)

    @property
    def ids(self) -> tuple[str, ...]:
        """The image ids, in the order of every per-image list."""
        return self.counts.ids

    @property
    def key(self) -> str:
        """What tells this measurement from others: equal for a repeated one, and only for that."""
        return measurement_key({name: getattr(self, name) for name in (*IDENTITY, *DIGESTS)}, self.ids)

    @property
    def clean(self) -> bool:
        """Whether nothing was perturbed."""
        return self.kind == "clean"

    @property
    def verified(self) -> bool:
        """Whether the record says which images and masks were read, so that changed ones are noticed."""
        return bool(self.content)

    @property
    def strength(self) -> str:
        """How strong the perturbation was asked to be, such as `8/255`; empty where nothing says so."""
        if self.budget:
            return as_255(self.budget.eps)
        return next((value.strip("'") for name, value in self.arguments.items() if name in STRENGTHS), "")

    def to_json(self) -> dict[str, Any]:
        """Plain data, NaN as null."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        budget = self.budget and {"norm": self.budget.norm, "eps": self.budget.eps, "region": None}
        return {**plain, "budget": budget, "label_space": asdict(self.label_space), "counts": self.counts.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Record":
        """The inverse of `to_json`; records of earlier schemas are migrated.

        Raises:
            RobustsegError: it is no record, or one of a later schema.
        """
        schema = _schema(data)
        if schema not in range(1, SCHEMA + 1):
            raise RobustsegError(
                f"expected a record of schema 1 to {SCHEMA}, got {str(schema)[:40]}; try the robustseg version that wrote it"
            )
        needed = [f.name for f in fields(cls)] if schema == SCHEMA else FIRST
        plain = {**data, "schema": schema, "budget": None}
        known = fields_of(cls, plain, required=needed)
        if known.get("kind", "") not in KINDS:
            raise RobustsegError(f"expected a kind of {', '.join(KINDS[1:])}, got '{known['kind'][:40]}'")
        budget = read_as(_Budget | None, data.get("budget"), "budget")
        found = cls(**{**known, "budget": budget and Budget(budget["norm"], budget["eps"])})
        found._require_consistent()
        return found

    def _require_consistent(self) -> None:
        if not (self.network and self.data and self.perturbation):
            raise RobustsegError("expected specs of network, data and perturbation, got an empty one")
        if not self.ids or len(self.label_space) != len(self.counts.confusion):
            raise RobustsegError("expected counts of each class and of at least one image, got others")
        lengths = [(name, len(values)) for name, values in self.scores.items()]
        for name, length in [*lengths, *((name, len(values)) for name, values in self.verdicts.items())]:
            if length != len(self.ids):
                raise RobustsegError(f"expected {len(self.ids)} values, one an image, in {name[:40]}, got {length}")
        for name, most in (("rms", math.inf), ("linf", math.inf), ("agreement", 1.0)):
            if any(value < 0 or value > most for value in self.scores.get(name, ())):
                raise RobustsegError(f"expected values of 0 to {most:g} in scores.{name}, got others")


def _schema(data: Mapping[str, Any]) -> Any:
    """The version of the fields, which schema 1 called format."""
    schema = data.get("schema", data.get("format"))
    return schema if type(schema) is int else None


STRENGTHS = ("budget", "rms", "eps", "severity", "density", "amount")
"""Arguments that say how strong a perturbation is; the others say of which family it is."""


def read_records(path: str | Path) -> list[Record]:
    """The records of a run: `path` is its folder or its `records.jsonl`.

    Raises:
        RobustsegError: there are none, or as for `record_lines`.
    """
    file = Path(path)
    file = file / "records.jsonl" if file.is_dir() else file
    if not file.is_file():
        raise RobustsegError(f"expected records in {file}, got no such file; try: robustseg evaluate … --out {path}")
    records = list(record_lines(file))
    if not records:
        raise RobustsegError(f"expected records in {file}, got an empty file; try: robustseg evaluate … --out {path}")
    return records


def record_lines(file: Path, *, torn: bool = False) -> Iterator[Record]:
    """The records of a `records.jsonl`, which may be empty.

    Args:
        file: to read. torn: leave out a last line that a crash tore off, as whoever goes on with the run may.

    Raises:
        RobustsegError: a line is torn, changed since it was written, or no record.
    """
    return read_lines(file, Record.from_json, unsealed=lambda data: _schema(data) in (1, 2), torn=torn)
