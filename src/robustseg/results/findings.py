"""What an audit found, as plain data: one line of `audit.jsonl` for each control of a number. No torch."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_lines
from robustseg.core.schema import fields_of
from robustseg.results.record import Record
from robustseg.results.summary import conditions

OK, SUSPICIOUS, NOT_CHECKED = "ok", "suspicious", "not checked"
FILE = "audit.jsonl"
FORMAT = 2
"""The version of a finding's fields; those of format 1 are the same, in lines without a digest."""


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
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Finding":
        """The inverse of `to_json`.

        Raises:
            RobustsegError: it is no finding, or one of a later format.
        """
        if not _early(data) and data.get("format") != FORMAT:
            raise RobustsegError(
                f"expected a finding of format 1 or {FORMAT}, got {str(data.get('format'))[:40]}; "
                "try the robustseg version that wrote it"
            )
        found = cls(**fields_of(cls, data, required=[field.name for field in fields(cls)]))
        if found.status not in (OK, SUSPICIOUS, NOT_CHECKED):
            raise RobustsegError(f"expected a status such as '{OK}', got '{found.status[:40]}'")
        return found


def _early(data: dict[str, Any]) -> bool:
    """Whether a line is of format 1, which had no digest."""
    return type(data.get("format")) is int and data["format"] == 1


def subject_of(record: Record) -> str:
    """A short name for the network of a record and the conditions under which it was measured: data, images, size."""
    return hashlib.sha256(json.dumps(conditions(record)).encode()).hexdigest()[:16]


def read_findings(folder: str | Path, *, torn: bool = False) -> list[Finding]:
    """The findings of a run folder, of each control the latest; none where nobody audited it.

    Args:
        folder: of the run. torn: leave out a last line that a crash tore off, as whoever goes on with the audit may.

    Raises:
        RobustsegError: a line is torn, changed since it was written, or no finding.
    """
    file = Path(folder) / FILE
    found = read_lines(file, Finding.from_json, unsealed=_early, torn=torn) if file.is_file() else ()
    return list({finding.place: finding for finding in found}.values())


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
