"""The page: one self-contained HTML file that needs no network, no script and no torch to be read."""

import base64
import hashlib
import io
import shlex
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from PIL import Image

from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line, sole_writer, write_whole
from robustseg.core.registry import RUNS_CODE
from robustseg.report import tables, words
from robustseg.report.figures import XMLNS, q_figure, recall_figure, road_users
from robustseg.results import metrics
from robustseg.results.current import current, distinct, stale_sentence
from robustseg.results.findings import Finding, read_findings
from robustseg.results.panels import Panel, read_caption, read_panel, tiles
from robustseg.results.record import SCHEMA, Record, read_records
from robustseg.results.summary import clean_of

MOST_PANELS = 20


TITLE = b"<title>robustseg "
"""Within the first bytes of each page that `write_page` may replace."""


def write_report(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Make one page of the records (and panels, where kept) of some run folders.

    Args:
        folders: run folders, each with `records.jsonl`. out: the HTML file to write; its folder is made.

    Returns:
        The path of the page.

    Raises:
        RobustsegError: a folder has no records, or the page cannot be written.
    """
    read = [distinct(read_records(folder)) for folder in folders]
    present = [current(records) for records in read]
    records = _distinct([record for records in present for record in records])
    stale = sum(map(len, read)) - sum(map(len, present))
    panels = [path for folder in folders for path in sorted((Path(folder) / "panels").glob("*.npz"))]
    findings = [finding for folder in folders for finding in read_findings(folder)]
    path = Path(out)
    write_page(path, page(records, panels, findings, stale=stale))
    return path


def write_page(path: Path, text: str) -> None:
    """Write a page of `document`, in the place of an older one if there is one; its folder is made.

    Raises:
        RobustsegError: the file is there and no such page, another run writes into the folder, or it cannot be written.
    """
    with sole_writer(path.parent):
        if path.exists() and not (path.is_file() and TITLE in path.read_bytes()[:4000]):
            raise RobustsegError(
                f"expected a new file or an older page, got '{path}' of something else; try another --out"
            )
        write_whole(path, text)


def _distinct(records: Sequence[Record]) -> list[Record]:
    return list({json_line(record.to_json()): record for record in records}.values())


def page(
    records: Sequence[Record], panels: Sequence[Path] = (), findings: Sequence[Finding] = (), *, stale: int = 0
) -> str:
    """The whole HTML text of records, and of the panel files and the findings of audits that belong to them.

    Args:
        stale: how many records the folders hold that are not of their present state, see `results.current`.
    """
    found = tables.groups(records, findings)
    said = f'<p class="note">{escape(stale_sentence(stale))}.</p>' if stale else ""
    body = _header(found) + said + "".join(_group(group, panels, number) for number, group in enumerate(found, 1))
    return document("robustseg report", body)


def document(title: str, body: str) -> str:
    """A whole HTML document in the look of the house, with nothing from outside and no script but the one of the house."""
    texts = {name: (resources.files("robustseg.report") / f"page.{name}").read_text("utf-8") for name in ("css", "js")}
    known = base64.b64encode(hashlib.sha256(texts["js"].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{known}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{texts["css"]}</style></head>\n'
        f"<body><main>{body}</main><script>{texts['js']}</script></body></html>\n"
    )


def _header(found: Sequence[tables.Group]) -> str:
    several = len(found) > 1
    names = [group.data.partition("(")[0] for group in found]
    places = names if len(set(names)) == len(names) else [_title(group) for group in found]
    sentences = [
        f"On {place}: {text}" if several else text
        for place, group in zip(places, found, strict=True)
        for text in words.headline(group.records, group.findings)
    ]
    started = sorted(r.started[:10] for group in found for r in group.records if r.started)
    kicker = "How far noise and attacks break a segmentation network"
    dates = " to ".join(dict.fromkeys((started[0], started[-1]))) if started else ""
    leads = "".join(f'<p class="lead">{_unbroken(text)}</p>' for text in sentences[1:6])
    links = "".join(f'<a href="#data-{i}">{escape(_title(group))}</a>' for i, group in enumerate(found, 1))
    contents = f"<nav>{links}</nav>" if several else ""
    return (
        f'<header><p class="kicker">{escape(" · ".join(filter(None, (kicker, dates))))}</p>'
        f"<h1>{_unbroken(sentences[0])}</h1>{leads}{contents}</header>"
    )


def _unbroken(text: str) -> str:
    """Keeps a figure and its percent sign on one line."""
    return escape(text).replace(" %", "&nbsp;%")


def _title(group: tables.Group) -> str:
    size = f" at {group.size[1]} x {group.size[0]}" if group.size else ""
    name = group.data.partition("(")[0]
    return f"{name}, {len(group.ids)} image{'s' * (len(group.ids) != 1)}{size}{group.state}"


def _group(group: tables.Group, panels: Sequence[Path], number: int) -> str:
    """Everything about one data set; nothing in it mixes label spaces or images."""
    first = group.records[0]
    facts = {
        "tier": words.tier(first),
        "protocol": words.protocol(first),
        "classes": str(len(group.label_space)),
        "networks": str(len({r.network for r in group.records})),
        "measurements": str(len(group.records)),
        "data": group.data,
    }
    if group.state:
        facts["apart"] = "from the other sections of this data: other images, masks, or weights or code of a network"
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())
    return (
        f'<section><h2 id="data-{number}">{escape(_title(group))}</h2><dl class="facts">{listed}</dl>'
        + _strength(group)
        + _measurements(group)
        + _audit(group)
        + _worst_cases(group)
        + _sequences(group)
        + _classes(group)
        + _road_users(group)
        + _worst(group)
        + _panels(group, panels)
        + _repeat(group)
        + "</section>"
    )


def _strength(group: tables.Group) -> str:
    figure = q_figure(group.records)
    if not figure:
        return ""
    return (
        "<h3>What is left at which strength</h3>"
        '<p class="note">Q is the mIoU of a network on perturbed images over its mIoU on the clean ones. Noise (dashed) '
        "and attacks (solid) share one axis: the root mean square change of a value that was realised after clipping. "
        "Whiskers: 95 % intervals from blocks of 15 frames, paired with the clean run; none under 30 images. Of several draws "
        "(runs that differ in --seed alone) the line is the mean, and below it, thin, each image takes its worst draw.</p>"
        f'<div class="figure">{_inline(figure)}</div>{_table(tables.halving(group), group, short=True)}'
    )


def _measurements(group: tables.Group) -> str:
    return (
        "<h3>Every measurement</h3>"
        '<p class="note">mIoU is pooled over all images; "per image" is the mean of the mIoU of each. Agreement: labelled '
        "pixels that keep their clean prediction. RMS: mean over the images; L∞: the largest; PSNR: mean over the images "
        "that were changed. Passes: forward and backward, one image each. A click on a column sorts.</p>"
        + _table(tables.measurements(group), group)
    )


def _audit(group: tables.Group) -> str:
    table = tables.audit(group)
    if table is None:
        return ""
    return (
        "<h3>Can these numbers be trusted?</h3>"
        '<p class="note">The strongest attack within each budget, held against what a sound attack must beat, and a close '
        "look at each network, on a few of the images. Pointing at what was seen shows the control that was run.</p>"
        + _table(table, group)
    )


def _worst_cases(group: tables.Group) -> str:
    table = tables.within_budgets(group)
    if table is None:
        return ""
    return (
        "<h3>The worst of all that was tried</h3>"
        '<p class="note">For each budget over every record with images within it, weaker ones and noise included. Worst mIoU: '
        "each image takes the record that makes the pooled mIoU lowest (a greedy search; no choice of records is below the "
        "figure beside it). Worst pixels right: each image takes the record with the fewest.</p>" + _table(table, group)
    )


def _sequences(group: tables.Group) -> str:
    table = tables.by_sequence(group)
    if table is None:
        return ""
    return (
        "<h3>Each sequence apart, then all</h3>"
        '<p class="note">Sequences differ in how near they are to what the networks were trained on. No interval stands '
        "where a sequence has fewer than two blocks of 15 frames.</p>" + _table(table, group)
    )


def _classes(group: tables.Group) -> str:
    table = tables.classes(group)
    if table is None:
        return ""
    return (
        "<h3>Classes: clean against the strongest perturbation</h3>"
        '<p class="note">IoU in percent, pooled over all images; the strongest perturbation is the one with the lowest '
        "mIoU. Classes without a labelled pixel have no figure.</p>" + _table(table, group, short=True)
    )


def _road_users(group: tables.Group) -> str:
    figures, named = [], []
    pixels = metrics.totals(group.records[0].counts)
    for position in road_users(group.records[0]):
        if (pixels.tp + pixels.fn)[position] and (figure := recall_figure(group.records, position)):
            figures.append(f'<div class="figure">{_inline(figure)}</div>')
            named.append(group.label_space.names[position])
    if not figures:
        return ""
    return (
        f"<h3>Vulnerable road users: recall of {escape(', '.join(named))}</h3>"
        '<p class="note">Recall: the share of their labelled pixels that is found. The dotted line is the clean run.</p>'
        + "".join(figures)
    )


def _worst(group: tables.Group) -> str:
    table = tables.within_budgets(group)
    if table is None:
        return ""
    return (
        f"<h3>The {len(table.rows)} images that lost most</h3>"
        '<p class="note">By drop of the mIoU of the image, over the classes that are in it. Each image stands once a '
        "network, with the perturbation that hurt it most.</p>" + _table(table, group)
    )


def _panels(group: tables.Group, panels: Sequence[Path]) -> str:
    own = [(path, record) for path in panels if (record := _record_of(path, group))]
    if not own:
        return ""
    chips = "".join(
        f"<span>{_chip(colour)}{escape(name)}</span>"
        for name, colour in zip(group.label_space.names, group.label_space.palette, strict=True)
    )
    more = f" {len(own) - MOST_PANELS} more are kept in the run folder." if len(own) > MOST_PANELS else ""
    chosen = _telling(own)[:MOST_PANELS]
    drawn = "".join(_panel(read_panel(path), record, group) for path, record in chosen)
    return (
        "<h3>What it looks like</h3>"
        '<p class="note">The difference is drawn around mid-grey and magnified by the factor that stands below it. Black '
        f'is void or no class.{more}</p><div class="legend">{chips}</div>{drawn}'
    )


def _telling(own: Sequence[tuple[Path, Record]]) -> list[tuple[Path, Record]]:
    """The panel with the lowest mIoU of each network and kind of perturbation first, then the others, lowest first."""

    def after(pair: tuple[Path, Record]) -> float:
        path, record = pair
        return float(metrics.image_miou(record.counts)[record.ids.index(read_caption(path).id)])

    ranked = sorted(own, key=after)
    first = {(record.network, words.family(record)): (path, record) for path, record in reversed(ranked)}
    heads = {path for path, _ in first.values()}
    return sorted(ranked, key=lambda pair: pair[0] not in heads)


def _record_of(path: Path, group: tables.Group) -> Record | None:
    shown = read_caption(path)
    return next((r for r in group.records if r.key == shown.record and shown.id in r.ids), None)


def _panel(panel: Panel, record: Record, group: tables.Group) -> str:
    network = words.network_names(group.records)[record.network]
    index = record.ids.index(panel.id)
    clean = clean_of(record, group.records)
    after = words.percent(float(metrics.image_miou(record.counts)[index]))
    before = words.percent(float(metrics.image_miou(clean.counts)[index])) if clean else words.DASH
    figures = []
    for tile in tiles(panel):
        look = "" if tile.photo else ' class="flat"'
        figures.append(
            f'<figure><img{look} loading="lazy" alt="{escape(tile.title)}" width="{tile.picture.width}" '
            f'height="{tile.picture.height}" src="{_data_uri(tile.picture, photo=tile.photo)}">'
            f"<figcaption>{escape(tile.title)}</figcaption></figure>"
        )
    return (
        f'<div class="panel"><h4>{escape(panel.id)} <span>· {escape(network)} · <code>{escape(record.perturbation)}</code> '
        f'· mIoU of this image {before} to {after} %</span></h4><div class="tiles">{"".join(figures)}</div></div>'
    )


def _data_uri(picture: Image.Image, *, photo: bool) -> str:
    buffer = io.BytesIO()
    if photo:
        picture.save(buffer, "JPEG", quality=88, subsampling=0)
    else:
        picture.save(buffer, "PNG", optimize=True)
    kind = "jpeg" if photo else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _repeat(group: tables.Group) -> str:
    """Commands, conditions, file hashes and image ids."""
    runs: dict[tuple[object, ...], list[Record]] = {}
    for r in group.records:
        runs.setdefault(
            (r.source if r.source != r.network else "", r.seed, r.batch_size, r.precision, r.device), []
        ).append(r)
    commands = "\n\n".join(_command(own) for own in runs.values())
    ids = escape(" ".join(group.ids))
    code = f"<p>{escape(RUNS_CODE)}</p>" if "module(" in commands else ""
    return (
        "<h3>To repeat this run</h3>"
        f"<pre>{escape(commands)}</pre>{code}{_conditions(group.records)}"
        f"<details><summary>The {len(group.ids)} images</summary><pre>{ids}</pre></details>"
    )


def _command(own: Sequence[Record]) -> str:
    first = own[0]
    parts = [f"--network {_quoted(spec)}" for spec in dict.fromkeys(r.network for r in own)]
    if first.source not in ("", first.network):
        parts.append(f"--source {_quoted(first.source)}")
    parts.append(f"--data {_quoted(first.data)}")
    parts += [f"--perturbation {_quoted(spec)}" for spec in dict.fromkeys(r.perturbation for r in own if not r.clean)]
    size = f" --size {first.size[0]}x{first.size[1]}" if first.size else ""
    parts.append(
        f"--images {len(first.ids)} --batch-size {first.batch_size}{size} --seed {first.seed} "
        f"--device {_quoted((first.device.split() or ['cpu'])[0])} --precision {first.precision} --out DIR"
    )
    return "robustseg evaluate \\\n    " + " \\\n    ".join(parts)


def _quoted(text: str) -> str:
    """For a POSIX shell; in double quotes where that spares the quotes of a spec."""
    plain = "'" in text and not set(text) & set('"$`\\!')
    return f'"{text}"' if plain else shlex.quote(text)


def _conditions(records: Sequence[Record]) -> str:
    def values(texts: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(text for text in texts if text)) or "not recorded"

    files: dict[str, list[str]] = {}
    for name, digest in (pair for r in records for pair in r.files.items()):
        files.setdefault(name, []).append(digest)
    rows = {
        "seed": values([str(r.seed) for r in records]),
        "size": values([f"{r.size[0]}x{r.size[1]} (height x width)" if r.size else "as in the data" for r in records]),
        "batch size": values([str(r.batch_size) for r in records]),
        "precision": values([r.precision for r in records]),
        "device": values([r.device for r in records]),
        "versions": values([f"{name} {version}" for r in records for name, version in r.versions.items()]),
        "commit": values([r.commit or "" for r in records]),
        "started": values([f"{min(r.started for r in records)} to {max(r.started for r in records)}"]),
        **_unverified(records),
        "absent classes": "classes without a labelled pixel are left out, the same ones for clean and perturbed runs",
        "intervals": "95 %, 1000 bootstrap draws of circular blocks of 15 frames within sequences, seed 0",
    }
    rows |= {f"SHA-256 of {name}": values(digests) for name, digests in files.items()}
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows.items())
    return f'<div class="scroll short"><table class="conditions"><tbody>{body}</tbody></table></div>'


def _unverified(records: Sequence[Record]) -> dict[str, str]:
    """Said once: which records do not tell whether images, masks, code or they themselves have changed since."""
    old = sum(not record.verified or record.schema < SCHEMA for record in records)
    said = (
        f"{old} of {len(records)} records were measured before records kept digests of themselves and of the images, masks and "
        "code that they rest on: whether those have changed since is not known"
    )
    return {"unverified": said} if old else {}


def _table(table: tables.Table, group: tables.Group, *, short: bool = False) -> str:
    head = "".join(
        f'<th scope="col"{" class=text" if i < table.texts else ""}>{escape(name)}</th>'
        for i, name in enumerate(table.head)
    )
    rows, before = [], table.rows[0][0].text if table.rows else ""
    for row in table.rows:
        start = table.head[0] == "network" and row[0].text != before
        before = row[0].text
        mark = "total" if row[0].look == "total" else "start" if start else ""
        cells = "".join(_cell(cell, i < table.texts, group) for i, cell in enumerate(row))
        rows.append(f"<tr{f' class={mark}' if mark else ''}>{cells}</tr>")
    kind = "short" if short else "whole" if len(rows) <= 25 else "wide" if len(table.head) > 8 else ""
    return (
        f'<div class="scroll {kind}" tabindex="0"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(cell: tables.Cell, text: bool, group: tables.Group) -> str:
    """One `<td>`; `class:N` puts the colour of the class in front, `bar` draws the share behind the figure."""
    kind, _, position = cell.look.partition(":")
    looks = " ".join(filter(None, ("text" if text else "", kind if kind not in ("class", "total") else "")))
    marks = f' class="{looks}"' if looks else ""
    if cell.value is not None:
        marks += f' data-v="{cell.value:.8g}"'
        if kind == "bar":
            marks += f' style="--share:{min(max(cell.value, 0.0), 1.0):.3f}"'
    if cell.title:
        marks += f' title="{escape(cell.title)}"'
    chip = _chip(group.label_space.palette[int(position)]) if kind == "class" else ""
    return f"<td{marks}>{chip}{escape(cell.text)}</td>"


def _chip(colour: tuple[int, int, int]) -> str:
    return f'<i class="chip" style="background:rgb{tuple(colour)}"></i>'


def _inline(svg: str) -> str:
    return svg.replace(XMLNS, "", 1)
