"""What a study of a paper leaves: tables of our figures beside theirs, and a verdict on each claim. No torch.

Everything here is made from records by pure functions, so it can be made again without running anything.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_lines, write_whole
from robustseg.results.record import Counts, Record

Kind = TypeVar("Kind")

HELD, NOT_HELD, UNDECIDED, NOT_TESTABLE = "held", "not held", "undecided", "not testable here"

SEEDS = 3
"""How many seeds a row needs to carry a claim."""


class Cost(NamedTuple):
    """What a step of a study will take; 0 where it is done already, NaN where nothing tells."""

    step: str
    seconds: float


def tier_of(name: str, known: Mapping[str, Kind]) -> Kind:
    """The tier of this name.

    Raises:
        RobustsegError: there is none.
    """
    if name not in known:
        raise RobustsegError(f"expected a tier, got '{name}'; try {', '.join(known)}")
    return known[name]


def made_by(records: Sequence[Record]) -> dict[str, str]:
    """By which code, when, and in how many hours records were made."""
    # the records of one pass share its seconds
    passes = {(r.perturbation, r.source, r.data, r.ids, r.started): r.seconds for r in records}
    return {
        "commits": ", ".join(sorted({r.commit or "?" for r in records})),
        "dates": ", ".join(sorted({r.started[:10] for r in records})),
        "hours": f"{sum(passes.values()) / 3600:.2f} of measuring on {', '.join(sorted({r.device for r in records}))}",
    }


class Beside(NamedTuple):
    """Our figure beside the paper's.

    Args:
        ours: one value a seed; none where it was not run.
        theirs: the paper's value; None where it has none.
    """

    ours: tuple[float, ...]
    theirs: float | None = None

    def __str__(self) -> str:
        """`48.3 ± 0.4 (61.0)`: the mean over seeds and their standard deviation, the paper's in brackets."""
        known = [value for value in self.ours if not math.isnan(value)]
        text = f"{np.mean(known):.1f}" if known else "not run"
        spread = f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else ""
        return text + spread + ("" if self.theirs is None else f" ({self.theirs:.1f})")


Cell = str | Beside


@dataclass(frozen=True)
class Table:
    """One table: the first cell of a row says what it is of. `note` says what must be known to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table with its title above and its note below."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        drawn = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
        return f"### {self.title}\n\n{drawn}\n" + (f"\n{self.note}\n" if self.note else "")

    def to_json(self) -> dict[str, Any]:
        """Plain data; a figure is an object with `ours` and `theirs`."""
        rows = [[cell._asdict() if isinstance(cell, Beside) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "columns": self.columns, "rows": rows, "note": self.note}


@dataclass(frozen=True)
class Measure:
    """What was measured on one image beside the records.

    Args:
        kind: of what is measured. who: which network, or what stands beside the networks.
        image: its id. about: what decides it (weights, settings, data, seed); compared as it is.
        values: by name. counts: of the pixels, where something was labelled.
        commit: of the code.
    """

    kind: str
    who: str
    image: str
    about: dict[str, Any]
    values: dict[str, float]
    counts: Counts | None = None
    commit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes null when it is written."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "counts": self.counts and self.counts.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Measure":
        """What `to_json` and JSON made of it."""
        values = {name: math.nan if value is None else float(value) for name, value in data["values"].items()}
        return cls(**{**data, "values": values, "counts": data["counts"] and Counts.from_json(data["counts"])})

    @property
    def key(self) -> tuple[str, str, str, str]:
        """By which it is found again."""
        return self.kind, self.who, self.image, repr(sorted(self.about.items()))


def read_measures(path: Path) -> list[Measure]:
    """The measures in a file, none where there is no file."""
    return [Measure.from_json(line) for line in read_lines(path)] if path.is_file() else []


class Finding(NamedTuple):
    """What became of a claim: its name and sentence, the verdict, and the numbers that it rests on."""

    claim: str
    statement: str
    verdict: str
    numbers: str

    @property
    def line(self) -> str:
        """`B1 held: …`."""
        return f"{self.claim} {self.verdict}: {self.numbers}"


def exceeds(values: Sequence[float], bound: float = 0.0, *, seeds: int = SEEDS) -> str:
    """The verdict on "the mean is above the bound".

    Args:
        values: one a seed; of two rows that are compared, their difference seed by seed.
        bound: what they are held against.
        seeds: fewer values than this decide nothing; 1 where no training of ours lies between.

    Returns:
        `not testable here` without values, `undecided` where the mean is less than two standard deviations from the
        bound, else `held` or `not held`.
    """
    if not len(values) or any(math.isnan(value) for value in values):
        return NOT_TESTABLE
    gap = float(np.mean(values)) - bound
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if len(values) < seeds or abs(gap) < 2 * spread:
        return UNDECIDED
    return HELD if gap > 0 else NOT_HELD


def together(verdicts: Sequence[str]) -> str:
    """The verdict on a claim of several parts: one part that does not hold is enough against it."""
    order = (NOT_HELD, NOT_TESTABLE, UNDECIDED, HELD)
    return next(verdict for verdict in order if verdict in verdicts)


def write_study(
    folder: Path,
    *,
    title: str,
    about: dict[str, Any],
    tables: Sequence[Table],
    findings: Sequence[Finding],
    words: Sequence[str] = (),
) -> None:
    """Write `FOLDER/tables.md` for people and `FOLDER/verdicts.json` for scripts.

    Args:
        folder: of the records that tables and findings were made from. title: of the page.
        about: what the whole page rests on (tier, protocol, networks), as plain data.
        tables, findings: in order. words: what follows from them, a paragraph each.

    Raises:
        RobustsegError: the files cannot be written.
    """
    said = "\n".join(f"- {name}: {value}" for name, value in about.items())
    claims = "\n".join(f"- **{f.claim} {f.verdict}**: {f.numbers}\n  ({f.statement})" for f in findings)
    drawn = "\n".join(table.markdown() for table in tables)
    figures = [cell for table in tables for row in table.rows for cell in row if isinstance(cell, Beside)]
    how = "The mean over seeds with its standard deviation.\n\n" if figures else ""
    if any(figure.theirs is not None for figure in figures):
        how = "Ours first, the mean over seeds with its standard deviation; the paper's in brackets.\n\n"
    read = f"## In words\n\n{chr(10).join(f'{text}{chr(10)}' for text in words)}\n" if words else ""
    page = f"# {title}\n\n{said}\n\n{how}{read}## Claims\n\n{claims}\n\n## Tables\n\n{drawn}"
    write_whole(folder / "tables.md", page)
    plain = {
        "title": title,
        **about,
        "verdicts": [f._asdict() for f in findings],
        "tables": [table.to_json() for table in tables],
        **({"words": list(words)} if words else {}),
    }
    text = json.dumps(plain, indent=1, ensure_ascii=False, default=str)
    write_whole(folder / "verdicts.json", text + "\n")
