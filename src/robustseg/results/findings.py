"""What an audit found, as plain data: one line of `audit.jsonl` for each control of a number. No torch."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_lines
from robustseg.results.record import Record
from robustseg.results.summary import conditions

OK, SUSPICIOUS, NOT_CHECKED = "ok", "suspicious", "not checked"
FILE = "audit.jsonl"


@dataclass(frozen=True)
class Finding:
    """One control: of a network, or of the number that one attack gave.

    Args:
        check: its name, see `robustseg.audit`.
        status: `ok`, `suspicious` or `not checked`.
        network: of whom, as in the records. subject: `subject_of` these records.
        record: the key of the attack's record; empty where the network itself was looked at.
        perturbation: the attack that was checked, or empty.
        numbers: what was measured; shares in [0, 1].
        text: what that means, in plain words. advice: what to try next, or empty.
        control: the spec that was run in comparison, or empty. source: the other network it was made with, or empty.
        ids: the images looked at. commit, started: when and by which code.
    """

    check: str
    status: str
    network: str
    subject: str
    record: str = ""
    perturbation: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    text: str = ""
    advice: str = ""
    control: str = ""
    source: str = ""
    ids: tuple[str, ...] = ()
    commit: str | None = None
    started: str = ""

    @property
    def place(self) -> tuple[str, ...]:
        """What it is about: a later finding of the same place replaces it."""
        return self.check, self.subject, self.record

    @property
    def key(self) -> str:
        """What tells this control from others: a finding of the same key need not be made again."""
        told = json.dumps([*self.place, self.control, self.source, *self.ids])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def masking(self) -> bool:
        """Whether it hints at gradients that mislead; an attack that stopped too early, or knew too little, is no such hint."""
        return self.status == SUSPICIOUS and self.check not in ("more_steps", "adaptive")

    def to_json(self) -> dict[str, Any]:
        """Plain data for one line of JSON."""
        return {"format": 1, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Finding":
        """The inverse of `to_json`.

        Raises:
            RobustsegError: the line was written by another format of this package.
        """
        if data.get("format") != 1:
            raise RobustsegError(
                f"expected a finding of format 1, got {data.get('format')!r}; try the robustseg version that wrote it"
            )
        known = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        numbers = {name: math.nan if value is None else value for name, value in known.pop("numbers").items()}
        return cls(**{**known, "ids": tuple(known["ids"]), "numbers": numbers})


def subject_of(record: Record) -> str:
    """A short name for the network of a record and the conditions under which it was measured: data, images, size."""
    return hashlib.sha256(json.dumps(conditions(record)).encode()).hexdigest()[:16]


def read_findings(folder: str | Path) -> list[Finding]:
    """The findings of a run folder, of each control the latest; none where nobody audited it."""
    file = Path(folder) / FILE
    lines = read_lines(file) if file.is_file() else ()
    return list({found.place: found for found in map(Finding.from_json, lines)}.values())


def about(record: Record, findings: Sequence[Finding]) -> list[Finding]:
    """Those findings that a record's number rests on: of its own attack, and of its network."""
    return on([record], findings)


def on(records: Sequence[Record], findings: Sequence[Finding]) -> list[Finding]:
    """Those findings that the numbers of some records rest on."""
    keys, subjects = {"", *(r.key for r in records)}, {subject_of(r) for r in records}
    return [f for f in findings if f.record in keys and f.subject in subjects]


def suspicious(findings: Sequence[Finding]) -> list[Finding]:
    """Those that raise a doubt."""
    return [found for found in findings if found.status == SUSPICIOUS]
