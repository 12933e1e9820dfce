"""The figures of Arnab et al. 2018 in our numbers, on one page that opens offline: curves, robustness against accuracy, matrices. No torch."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from robustseg.report.figures import XMLNS, Line, Plot, Point, curves, scatter
from robustseg.report.page import document
from robustseg.studies.arnab2018_evidence import Evidence, first_seeds, percent
from robustseg.studies.arnab2018_words import hardest
from robustseg.studies.study import Finding, Table

COLOURS = [f"rs-{kind}{i}" for i in range(6) for kind in "an"]
"""Classes of colours, neighbours far apart."""


def page(
    title: str,
    found: Evidence,
    *,
    claims: Sequence[Finding],
    tables: Sequence[Table],
    words: Sequence[str],
    about: Mapping[str, Any],
) -> str:
    """The whole HTML text.

    Args:
        title: of the page. found: for the figures. claims, tables, words: of the study. about: what it rests on.
    """
    attack, spec = hardest(found)
    drawn = (
        ("IoU ratio against eps", curves(panels(found), x_label="eps, n/255")),
        (f"Accuracy and robustness: {attack}", versus(found, spec)),
    )
    figures = "".join(
        f'<h2>{escape(name)}</h2><div class="figure">{svg.replace(XMLNS, "", 1)}</div>' for name, svg in drawn if svg
    )
    told = "".join(f"<p>{_text(text)}</p>" for text in words)
    listed = "".join(
        f"<p><b>{escape(f'{c.claim} {c.verdict}')}</b>: {escape(c.statement)}. {escape(c.numbers)}</p>" for c in claims
    )
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(text))}</dd></div>" for name, text in about.items())
    return document(
        title,
        f'<header><p class="kicker">robustseg reproduce arnab2018</p><h1>{escape(title)}</h1></header><section>'
        f'<dl class="facts">{facts}</dl>{figures}<h2>Which network should I prefer?</h2>{told}<h2>Claims</h2>{listed}'
        f"<h2>Tables</h2>{''.join(map(_table, tables))}</section>",
    )


def panels(found: Evidence) -> list[Plot]:
    """One panel an attack: the mean ratio of each network over its seeds, with the smallest and the largest as whiskers."""
    made = []
    for family, by_eps in found.attacks.families().items():
        lines = []
        for i, name in enumerate(first_seeds(found.names)):
            points = [p for eps, spec in by_eps.items() if (p := _point(found, name, spec, eps))]
            if points:
                lines.append(Line(name, COLOURS[i % len(COLOURS)], "", i, points))
        if lines:
            made.append(Plot(family, lines, "IoU ratio, %", 1.0))
    return made


def versus(found: Evidence, spec: str) -> str:
    """IoU ratio against clean mIoU, one mark a network; the paper's figure 4."""
    lines = []
    for i, name in enumerate(first_seeds(found.names)):
        clean = [value for n in found.seeds(name) if not math.isnan(value := found.clean(n))]
        point = _point(found, name, spec, sum(clean) / len(clean)) if clean else None
        if point:
            lines.append(Line(name, COLOURS[i % len(COLOURS)], "", i, [point]))
    return scatter(Plot("", lines, "IoU ratio, %", math.nan), x_label="clean mIoU, %")


def _point(found: Evidence, name: str, spec: str, x: float) -> Point | None:
    values = [value for n in found.seeds(name) if not math.isnan(value := found.ratio(n, spec))]
    if not values:
        return None
    mean = sum(values) / len(values)
    low, high = (min(values), max(values)) if len(values) > 1 else (math.nan, math.nan)
    text = f"{name}\n{spec.partition(', class_pixels')[0]}\nIoU ratio {percent(mean)} %"
    return Point(x, mean, low, high, text + (f", {len(values)} seeds" if len(values) > 1 else ""))


def _text(markdown: str) -> str:
    """Escaped, with what stands between double stars in bold."""
    return "".join(f"<b>{escape(part)}</b>" if i % 2 else escape(part) for i, part in enumerate(markdown.split("**")))


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col"{" class=text" if not i else ""}>{escape(c)}</th>' for i, c in enumerate(table.columns)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{' class=text' if not i else ''}>{escape(str(c))}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{escape(table.title)}</h3>{note}<div class="scroll whole" tabindex="0"><table class="sortable"><thead>'
        f"<tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
