"""What a run leaves behind, as plain data: label spaces, counts, records and the errors. No torch.

Everything after the counting is plain: a `Record` is one line of `records.jsonl`, and every figure of a report is
derived from its `Counts` later. NaN is "absent" and is written as `null`, never as 0.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

IGNORE = 255
"""The label of a pixel that counts for nothing (void)."""


class RobustsegError(ValueError):
    """Something the user can mend. The text says what was expected, what came, and what to try."""


class ShapeError(RobustsegError):
    """Tensors whose shapes do not fit each other."""


class LabelSpaceMismatch(RobustsegError):
    """A network and a data set that do not speak of the same classes."""


class DatasetNotFound(RobustsegError):
    """A data set that is not there or not complete; the text shows the expected tree."""


class SpecError(RobustsegError):
    """A spec that cannot be read or names nothing known; the text shows near matches."""


class MissingExtra(RobustsegError):
    """An optional package that is not installed; the text gives the install line."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"expected the package '{package}', got none; try: pip install 'robustseg[{extra}]'")


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set or a network, in train-id order.

    Args:
        names: one name a class; the position is the train id.
        palette: one (red, green, blue) a class, 0 to 255.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise RobustsegError(
                f"expected one colour a class, got {len(self.names)} names and {len(self.palette)} colours; "
                "try a palette of the same length"
            )
        if not 1 <= len(self.names) <= IGNORE:
            raise RobustsegError(f"expected 1 to {IGNORE} classes, got {len(self.names)}; {IGNORE} is the void label")

    def __len__(self) -> int:
        return len(self.names)

    def require_same(self, other: "LabelSpace", *, mine: str, theirs: str) -> None:
        """Raise `LabelSpaceMismatch` unless both have the same class names in the same order."""
        if self.names == other.names:
            return
        where = next(
            (i for i, (a, b) in enumerate(zip(self.names, other.names, strict=False)) if a != b),
            min(len(self), len(other)),
        )
        first, second = (s.names[where] if where < len(s) else "nothing" for s in (self, other))
        raise LabelSpaceMismatch(
            f"expected one label space, got {len(self)} classes in {mine} and {len(other)} in {theirs}; "
            f"they part at class {where}: '{first}' against '{second}'; "
            "try a network trained on these classes, or a data set with the network's classes"
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LabelSpace":
        """Rebuild from what `asdict` and JSON made of it."""
        return cls(tuple(data["names"]), tuple((int(r), int(g), int(b)) for r, g, b in data["palette"]))


@dataclass(frozen=True)
class Counts:
    """Pixel counts over a set of images: add with `+`, derive every metric later (`robustseg.metrics`).

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
                f"{self.tp.shape}, {self.fp.shape}, {self.fn.shape}; try robustseg.metrics.count"
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
        """The inverse of `to_json`."""
        k, n = len(data["confusion"]), len(data["ids"])
        rows = {name: np.array(data[name], np.int64).reshape(n, k) for name in ("tp", "fp", "fn")}
        return cls(tuple(data["ids"]), np.array(data["confusion"], np.int64).reshape(k, k + 1), **rows)


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
"""The fields of a record that decide its numbers, besides the images."""


def measurement_key(fields: Mapping[str, Any], ids: Sequence[str]) -> str:
    """A short name for a measurement from the `IDENTITY` fields and the image ids."""
    text = json.dumps([[fields[name] for name in IDENTITY], list(ids)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """One network measured under one perturbation over one data set: enough to repeat it and to derive every figure.

    Args:
        network, source, data, perturbation: specs; `source` made the perturbation, `network` was measured on it.
        weights, source_weights: digests of what the two networks computed with (`provenance.digest`).
        label_space: the classes of network and data.
        counts: the pixel counts.
        scores: per image, in the order of `counts.ids`: `rms`, `linf` (of the perturbation, images in [0, 1]),
            `agreement` (share of labelled pixels that keep their clean prediction), and what monitors add.
        verdicts: per image, what monitors said.
        flags: what was seen that makes the number doubtful, as name -> value; see `robustseg.evaluation`.
        files: SHA-256 of each file that a spec names.
        seed, batch_size, size, precision, device, versions, commit, started: the conditions of the run.
        seconds: spent on the batches, reading included. forwards, backwards: passes, one image through one network
            each. All three are of the whole pass over the data, which the records of one source share.
    """

    network: str
    source: str
    data: str
    perturbation: str
    label_space: LabelSpace
    counts: Counts
    weights: str = ""
    source_weights: str = ""
    scores: dict[str, list[float]] = field(default_factory=dict)
    verdicts: dict[str, list[str]] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 1
    size: tuple[int, int] | None = None
    precision: str = "float32"
    device: str = "cpu"
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    started: str = ""
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        """The image ids, in the order of every per-image list."""
        return self.counts.ids

    @property
    def key(self) -> str:
        """What tells this measurement from others: equal for a repeated one, and only for that."""
        return measurement_key({name: getattr(self, name) for name in IDENTITY}, self.ids)

    @property
    def clean(self) -> bool:
        """Whether nothing was perturbed."""
        return self.perturbation == "clean"

    def to_json(self) -> dict[str, Any]:
        """Plain data, NaN as null."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"format": 1, **plain, "label_space": asdict(self.label_space), "counts": self.counts.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Record":
        """The inverse of `to_json`.

        Raises:
            RobustsegError: the line was written by another format of this package.
        """
        if data.get("format") != 1:
            raise RobustsegError(
                f"expected a record of format 1, got {data.get('format')!r}; try the robustseg version that wrote it"
            )
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        known["label_space"] = LabelSpace.from_json(data["label_space"])
        known["counts"] = Counts.from_json(data["counts"])
        known["size"] = tuple(data["size"]) if data.get("size") else None
        known["scores"] = {k: [math.nan if v is None else v for v in vs] for k, vs in data.get("scores", {}).items()}
        return cls(**known)


def json_line(data: Any) -> str:
    """One line of JSON, NaN and infinities as null."""
    return json.dumps(_null_for_nan(data), allow_nan=False, separators=(",", ":")) + "\n"


def _null_for_nan(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {k: _null_for_nan(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_null_for_nan(v) for v in data]
    return data


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Within: no other process writes a run into this folder. A process that dies gives it up.

    Raises:
        RobustsegError: another process does.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock; two runs in one folder are then the user's to avoid
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RobustsegError(
            f"expected to be alone in {folder}, got another run that writes there; try another --out, or wait for it"
        ) from error
    finally:
        os.close(descriptor)


def append_line(path: Path, data: Any) -> None:
    """Append one line and force it to disk; a line that a crash tore off before is cut away first.

    Raises:
        RobustsegError: the disk is full or the file cannot be written; what was there before stays.
    """
    line = json_line(data).encode()
    try:
        with open(path, "ab") as file:
            start = _end_of_last_line(path)
            if start is not None:
                file.truncate(start)
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                _cut(path, start)
                raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a file beside its place, then rename it: it is there whole or not at all.

    Raises:
        RobustsegError: the disk is full or the file cannot be written; what was there before stays.
    """
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def read_lines(path: Path) -> Iterator[Any]:
    """The complete lines of a JSONL file; a torn last line is left out.

    Raises:
        RobustsegError: a complete line is not JSON.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RobustsegError(
                    f"expected one JSON object a line, got something else in line {number} of {path}; "
                    "try the file as the run wrote it"
                ) from error


def read_records(path: str | Path) -> list[Record]:
    """The records of a run: `path` is its folder or its `records.jsonl`.

    Raises:
        RobustsegError: there are none.
    """
    file = Path(path)
    file = file / "records.jsonl" if file.is_dir() else file
    if not file.is_file():
        raise RobustsegError(f"expected records in {file}, got no such file; try: robustseg evaluate … --out {path}")
    records = [Record.from_json(line) for line in read_lines(file)]
    if not records:
        raise RobustsegError(f"expected records in {file}, got an empty file; try: robustseg evaluate … --out {path}")
    return records


def make_folder(path: Path) -> Path:
    """Make a folder and those above it.

    Raises:
        RobustsegError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RobustsegError(
            f"expected to make the folder {path}, got '{error.strerror}'; try another --out"
        ) from error
    return path


def _end_of_last_line(path: Path) -> int | None:
    """Where the last complete line ends, or None where the target is no plain file (a device, a pipe)."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def _cut(path: Path, size: int | None) -> None:
    if size is not None:
        os.truncate(path, size)


def _cannot_write(path: Path, error: OSError) -> RobustsegError:
    return RobustsegError(f"expected to write {path}, got '{error.strerror}'; try another --out, or free some space")
