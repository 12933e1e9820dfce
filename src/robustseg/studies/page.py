"""What a study leaves: `tables.md` for people, `verdicts.json` for scripts, `figures.html` to look at. From records alone, without torch."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np

from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_json, sole_writer, write_whole
from robustseg.core.folders import require_own
from robustseg.core.schema import Count, read_as
from robustseg.report.figures import XMLNS
from robustseg.report.page import document
from robustseg.results.record import Record
from robustseg.studies.evidence import Evidence
from robustseg.studies.measures import Measure
from robustseg.studies.study import Study, opened
from robustseg.studies.verdicts import Verdict


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


def number(value: float, digits: int = 1) -> str:
    """A figure with so many decimals, or that it was not run."""
    return "not run" if math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float) -> str:
    """A ratio in percent, or that it was not run."""
    return number(100 * value)


@dataclass(frozen=True)
class Table:
    """One table: the first cell of a row says what it is of. `note` says what must be known to read it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def markdown(self) -> str:
        """The table with its title above and its note below."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        cells = ([" ".join(str(cell).replace("|", r"\|").split("\n")) for cell in line] for line in lines)
        drawn = "\n".join(f"| {' | '.join(line)} |" for line in cells)
        return f"### {self.title}\n\n{drawn}\n" + (f"\n{self.note}\n" if self.note else "")

    def html(self) -> str:
        """The same as HTML."""

        def cells(tag: str, row: Sequence[Cell]) -> str:
            return "".join(f"<{tag}{'' if i else ' class=text'}>{escape(str(c))}</{tag}>" for i, c in enumerate(row))

        head = cells("th", self.columns).replace("<th", '<th scope="col"')
        rows = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return (
            f'<h3>{escape(self.title)}</h3>{note}<div class="scroll whole" tabindex="0"><table class="sortable"><thead>'
            f"<tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data; a figure is an object with `ours` and `theirs`."""
        rows = [[cell._asdict() if isinstance(cell, Beside) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "columns": self.columns, "rows": rows, "note": self.note}


class _Options(TypedDict, total=False):
    """How a study was opened."""

    tier: str
    data: str
    rows: list[str] | None
    networks: list[str] | None
    size: tuple[Count, Count] | None


class _Run(TypedDict):
    """What `verdicts.json` says of how a study was run."""

    title: str
    tier: str
    options: NotRequired[_Options]


class Figure(NamedTuple):
    """A drawing of the page.

    Args:
        title: of the drawing. svg: the drawing; empty where there is nothing to draw.
        file: name of a file beside the page that holds it too.
    """

    title: str
    svg: str
    file: str = ""


def conclude(study: Study, folder: Path, out: Path | None = None) -> list[Verdict]:
    """Write tables, verdicts and figures from the records and measures of a folder; nothing is run.

    Args:
        study: as `study.opened` gives it. folder: of the records. out: where to write; the folder itself by default.

    Returns:
        The verdicts on the claims.

    Raises:
        RobustsegError: there are no records, or the files cannot be written.
    """
    found = Evidence.read(study, folder)
    if not any(found.all(row) for row in study.rows):
        raise RobustsegError(
            f"expected records of the study in '{folder}', got {len(found.records) or 'none'}"
            f"{' of other networks or images' if found.records else ''}; try the folder of robustseg reproduce {study.name}"
        )
    verdicts = [claim.verdict(found) for claim in study.claims]
    tables, words, figures = study.tables(found), study.words(found), study.figures(found)
    about = {
        "tier": study.tier,
        "protocol": study.protocol,
        **study.about,
        **made_by(found.records, found.measures),
    }
    plain = {
        "title": study.title,
        **about,
        "options": dict(study.options),
        "verdicts": [v._asdict() for v in verdicts],
        "tables": [table.to_json() for table in tables],
        **({"words": list(words)} if words else {}),
    }
    out = out or folder
    drawn = {figure.file: figure.svg for figure in figures if figure.file}
    with sole_writer(out):
        require_study(study, out, *drawn)
        write_whole(out / "verdicts.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
        write_whole(out / "tables.md", _markdown(study.title, about, verdicts, tables, words))
        if figures:
            write_whole(out / "figures.html", _html(study, about, verdicts, tables, words, figures))
        for name, svg in drawn.items():
            write_whole(out / name, svg)
    return verdicts


def require_study(study: Study, out: Path, *files: str) -> None:
    """Refuse a folder with tables of something else.

    Args:
        study: whose tables are to be written. out: the folder. files: further files that will be written.

    Raises:
        RobustsegError: tables, figures or one of the files are there without verdicts, or the verdicts of another study.
    """
    head = out / "verdicts.json"
    require_own(head, ("tables.md", "figures.html", *files))
    known = read_json(head, lambda data: read_as(_Run, data))["title"] if head.is_file() else study.title
    if known != study.title:
        raise RobustsegError(f"expected '{out}' to hold '{study.title}', got '{known}'; try another --out")


def as_run(name: str, folder: Path, tier: str | None = None) -> Study:
    """The study as it was run in a folder, by its `verdicts.json`.

    Args:
        name: of the study. folder: with records. tier: in place of the recorded one.

    Raises:
        RobustsegError: the folder does not say which tier was run, or holds another study.
    """
    path = folder / "verdicts.json"
    said = read_json(path, lambda data: read_as(_Run, data)) if path.is_file() else None
    options: dict[str, Any] = {"tier": said["tier"], **said.get("options", {})} if said else {}
    if tier:
        options["tier"] = tier
    if not options:
        raise RobustsegError(f"expected the tier in '{path}', got no such file; try --tier")
    study = opened(name, **options)
    if said and said["title"] != study.title:
        raise RobustsegError(
            f"expected '{study.title}' in '{folder}', got '{said['title'][:200]}'; try the study of that folder"
        )
    return study


def made_by(records: Sequence[Record], measures: Sequence[Measure] = ()) -> dict[str, str]:
    """By which code, when, and in how many hours records and measures were made."""
    # the records of one pass share its seconds
    commits = {r.commit for r in records} | {m.commit for m in measures}
    passes = {(r.perturbation, r.source, r.data, r.ids, r.started): r.seconds for r in records}
    contents = sorted({f"{r.content} ({r.data.partition('(')[0]}, {len(r.ids)})" for r in records if r.content})
    return {
        "commits": ", ".join(sorted(commit or "?" for commit in commits)),
        "dates": ", ".join(sorted({r.started[:10] for r in records})),
        "hours": f"{sum(passes.values()) / 3600:.2f} of measuring on {', '.join(sorted({r.device for r in records}))}",
        **({"images and masks": f"digests {', '.join(contents)}"} if contents else {}),
    }


def _markdown(
    title: str, about: Mapping[str, str], verdicts: Sequence[Verdict], tables: Sequence[Table], words: Sequence[str]
) -> str:
    said = "\n".join(f"- {name}: {value}" for name, value in about.items())
    claims = "\n".join(f"- **{v.claim} {v.verdict}**: {v.numbers}\n  ({v.statement})" for v in verdicts)
    drawn = "\n".join(table.markdown() for table in tables)
    figures = [cell for table in tables for row in table.rows for cell in row if isinstance(cell, Beside)]
    how = "The mean over seeds with its standard deviation.\n\n" if figures else ""
    if any(figure.theirs is not None for figure in figures):
        how = "Ours first, the mean over seeds with its standard deviation; the paper's in brackets.\n\n"
    read = f"## In words\n\n{chr(10).join(f'{text}{chr(10)}' for text in words)}\n" if words else ""
    text = f"# {title}\n\n{said}\n\n{how}{read}## Claims\n\n{claims}\n\n## Tables\n\n{drawn}"
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)  # Markdown takes tags for HTML


def _html(
    study: Study,
    about: Mapping[str, str],
    verdicts: Sequence[Verdict],
    tables: Sequence[Table],
    words: Sequence[str],
    figures: Sequence[Figure],
) -> str:
    drawn = "".join(
        f'<h2>{escape(f.title)}</h2><div class="figure">{f.svg.replace(XMLNS, "", 1)}</div>' for f in figures if f.svg
    )
    told = f"<h2>In words</h2>{''.join(f'<p>{_text(text)}</p>' for text in words)}" if words else ""
    listed = "".join(
        f"<p><b>{escape(f'{v.claim} {v.verdict}')}</b>: {escape(v.statement)}. {escape(v.numbers)}</p>"
        for v in verdicts
    )
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in about.items())
    return document(
        study.title,
        f'<header><p class="kicker">{escape(f"robustseg reproduce {study.name}")}</p><h1>{escape(study.title)}</h1></header><section>'
        f'<dl class="facts">{facts}</dl>{drawn}{told}<h2>Claims</h2>{listed}'
        f"<h2>Tables</h2>{''.join(table.html() for table in tables)}</section>",
    )


def _text(markdown: str) -> str:
    """Escaped, with what stands between double stars in bold."""
    return "".join(f"<b>{escape(part)}</b>" if i % 2 else escape(part) for i, part in enumerate(markdown.split("**")))
