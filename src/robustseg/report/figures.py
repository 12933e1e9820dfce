"""Figures of a report as SVG, written by hand: small, crisp, readable in light and dark, with a title on every point."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from robustseg.report.words import Family, family, family_names, network_names, percent
from robustseg.results import metrics
from robustseg.results.record import Record
from robustseg.results.summary import clean_of, conditions, mean_score

XMLNS = ' xmlns="http://www.w3.org/2000/svg"'

ROAD_USERS = {
    "pedestrian",
    "person",
    "people",
    "bicyclist",
    "cyclist",
    "rider",
    "bicycle",
    "motorcycle",
    "motorcyclist",
}
"""Class names of vulnerable road users."""

# Warm for attacks, cool for noise; told apart without colour by dashes (noise) and the shape of the marks.
ATTACKS = ("#c2312b", "#e07b1f", "#8f3f97", "#d4558b", "#9a6a17", "#6b2c2c")
NOISES = ("#1f6fb5", "#1e9a8a", "#6470c8", "#7c8a99", "#4f9d3f", "#37a9cf")
ATTACKS_DARK = ("#f0736b", "#f3a35c", "#cf8ad6", "#f08fb8", "#d3a756", "#c98b8b")
NOISES_DARK = ("#6fb1ec", "#58cbbb", "#a1aaf2", "#a9b5c2", "#8ccf7d", "#7dd0ec")


class Point(NamedTuple):
    """One measurement: strength, value, its interval (NaN ends where there is none), and a text to show.

    Of several draws of one perturbation (records that differ in seed alone), `y` is the mean over draws and `worst` what is
    left where each image takes its worst draw; else `worst` is NaN.
    """

    x: float
    y: float
    low: float
    high: float
    text: str
    worst: float = math.nan


class Line(NamedTuple):
    """One family of perturbations in one panel; `dashes` as in SVG, `mark` numbers a shape."""

    name: str
    colour: str
    dashes: str
    mark: int
    points: list[Point]


class Plot(NamedTuple):
    """One small figure of a grid; `clean` is the value of the clean run, NaN where it is not drawn."""

    title: str
    lines: list[Line]
    y_label: str
    clean: float


def q_figure(records: Sequence[Record]) -> str:
    """Q against realised strength, one panel a network, noise and attacks together; a stand-alone SVG.

    Args:
        records: of one data set; those without strength or without a clean record are left out.
    """
    return curves(q_panels(records))


def q_panels(records: Sequence[Record]) -> list[Plot]:
    """The panels of `q_figure`."""
    return _panels(records, _q_point, "Q, % of clean mIoU left", lambda record: 1.0)


def strength_figure(records: Sequence[Record]) -> str:
    """mIoU beside Q against realised strength, a row a network; a stand-alone SVG. Records as for `q_figure`."""
    panels = _panels(records, _miou_point, "mIoU, %", lambda record: metrics.miou(record.counts)) + q_panels(records)
    titles = [panel.title for panel in panels]
    return curves(sorted(panels, key=lambda panel: titles.index(panel.title)))


def recall_figure(records: Sequence[Record], position: int) -> str:
    """Recall of one class (by train id) against realised strength, one panel a network; a stand-alone SVG."""

    def recall(record: Record) -> float:
        return float(metrics.class_recall(record.counts)[position])

    y_label = f"recall of {records[0].label_space.names[position]}, %"
    return curves(_panels(records, lambda draws, _: _recall_point(draws, position), y_label, recall))


def road_users(record: Record) -> list[int]:
    """Train ids of the vulnerable road users that the label space names."""
    return [i for i, name in enumerate(record.label_space.names) if set(name.lower().split()) & ROAD_USERS]


def _panels(
    records: Sequence[Record],
    point_of: Callable[[Sequence[Record], Record | None], Point | None],
    y_label: str,
    level: Callable[[Record], float],
) -> list[Plot]:
    """One panel a network.

    Args:
        records: of one data set. point_of: of the draws of one perturbation, beside the clean record.
        y_label: of the values. level: the value of a clean record.
    """
    names, looks, networks = family_names(records), _looks(records), network_names(records)
    panels = []
    for spec in dict.fromkeys(r.network for r in records):
        lines, clean = [], next((r for r in records if r.network == spec and r.clean), None)
        for one, name in names.items():
            chosen = [r for r in records if r.network == spec and not r.clean and family(r) == one]
            points = [p for draws in draws_of(chosen) if (p := point_of(draws, clean_of(draws[0], records)))]
            points = sorted((p for p in points if p.x > 0 and math.isfinite(p.y)), key=lambda p: p.x)
            if points:
                mark, colour = looks[one._replace(source="")]
                dashes = "5 3" if one.kind == "noise" else "1.5 3" if one.source else ""
                lines.append(Line(name, colour, dashes, mark, points))
        if lines:
            panels.append(Plot(networks[spec], lines, y_label, level(clean) if clean else math.nan))
    return panels


def draws_of(records: Sequence[Record]) -> list[list[Record]]:
    """Records apart by everything but the seed: the draws of one perturbation."""
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        key = record.perturbation, record.source, record.source_weights, conditions(record)
        found.setdefault(key, []).append(record)
    return list(found.values())


def _looks(records: Sequence[Record]) -> dict[Family, tuple[int, str]]:
    """A mark and a colour class for each family; what was made against another network looks like its own kind."""
    looks: dict[Family, tuple[int, str]] = {}
    used = {"attack": 0, "noise": 0}
    for one in (found._replace(source="") for found in family_names(records)):
        if one not in looks:
            kind = "attack" if one.kind == "attack" else "noise"
            looks[one] = (used[kind], f"rs-{kind[0]}{used[kind] % len(ATTACKS)}")
            used[kind] += 1
    return looks


def _q_point(draws: Sequence[Record], clean: Record | None) -> Point | None:
    if clean is None:
        return None
    found = [q_interval(record, clean) for record in draws]
    below = metrics.miou(clean.counts)
    return _point(draws, found, "Q", _worst_miou(draws) / below if below > 0 else math.nan)


def _miou_point(draws: Sequence[Record], _: Record | None) -> Point:
    found = [metrics.interval(metrics.miou(r.counts), metrics.image_miou(metrics.resample(r.counts))) for r in draws]
    return _point(draws, found, "mIoU", _worst_miou(draws))


def _worst_miou(draws: Sequence[Record]) -> float:
    return metrics.worst([record.counts for record in draws]).miou


def _point(draws: Sequence[Record], found: Sequence[metrics.Interval], name: str, worst: float = math.nan) -> Point:
    """The mean over draws; the interval of a single one."""
    value = float(np.mean([one.value for one in found]))
    x = 255 * float(np.mean([mean_score(record, "rms") for record in draws]))
    low, high = found[0][1:] if len(found) == 1 else (math.nan, math.nan)
    text = f"{draws[0].perturbation}\n{name} {percent(value)} %"
    if math.isfinite(low):
        text += f" ({percent(low)} to {percent(high)})"
    if len(draws) == 1:
        return Point(x, value, low, high, f"{text}, RMS {x:.2f}/255")
    text += f", the mean of {len(draws)} draws" + (f"; of the worst {percent(worst)} %" if math.isfinite(worst) else "")
    return Point(x, value, low, high, f"{text}\nRMS {x:.2f}/255", worst)


def q_interval(record: Record, clean: Record, images: Sequence[int] | None = None) -> metrics.Interval:
    """Q with its paired block-bootstrap interval."""
    below = metrics.image_miou(metrics.resample(clean.counts, images))
    above = metrics.image_miou(metrics.resample(record.counts, images))
    samples = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return metrics.interval(metrics.q(record.counts, clean.counts, images), samples)


def _recall_point(draws: Sequence[Record], position: int) -> Point:
    found = []
    for record in draws:
        drawn = metrics.resample(record.counts)
        tp, labelled = drawn.tp[:, position], drawn.tp[:, position] + drawn.fn[:, position]
        samples = np.divide(tp, labelled, out=np.full(len(tp), np.nan), where=labelled > 0)
        found.append(metrics.interval(float(metrics.class_recall(record.counts)[position]), samples))
    return _point(draws, found, "recall")


PLOT, HEIGHT, LEFT, TOP, BOTTOM = 362, 340, 40, 48, 44
"""Of one panel, pixels: the width of the plot, the height of all, and the margins."""


def curves(panels: Sequence[Plot], *, x_label: str = "realised RMS, n/255") -> str:
    """Shares against strength, two panels a row, every line with its name at its end; a stand-alone SVG.

    Args:
        panels: none gives an empty text. x_label: of the axis, which is drawn in octaves.
    """
    if not panels:
        return ""
    points = [p for panel in panels for line in panel.lines for p in line.points]
    low, high = min(p.x for p in points) / 1.25, max(p.x for p in points) * 1.25
    widen = max(1.0, math.sqrt(5 * low / high))
    top = max([1.0, *(p.y for p in points), *(p.high for p in points if math.isfinite(p.high))])
    right, bottom = LEFT + PLOT, HEIGHT - BOTTOM
    scale = Scale((math.log2(low / widen), math.log2(high * widen)), top, right, bottom)
    width, columns = _width([line.name for panel in panels for line in panel.lines]), min(2, len(panels))
    body, labels = [], " and ".join(dict.fromkeys(panel.y_label for panel in panels))
    for i, panel in enumerate(panels):
        parts = [_axes(panel.title, (panel.y_label, x_label), scale), *(_curve(line, scale) for line in panel.lines)]
        parts.append(_labels(panel.lines, panel.clean, scale))
        body.append(f'<g transform="translate({i % columns * width} {i // columns * HEIGHT})">{"".join(parts)}</g>')
    all_width, all_height = columns * width, -(-len(panels) // columns) * HEIGHT
    return (
        f'<svg{XMLNS} class="rs-figure" viewBox="0 0 {all_width} {all_height}" width="{all_width}" role="img" '
        f'aria-label="{escape(labels)} against {escape(x_label)}"><style>{_style()}</style>{"".join(body)}</svg>'
    )


def scatter(panel: Plot, *, x_label: str) -> str:
    """Shares against shares: each line a mark or a few, with its name beside the plot; a stand-alone SVG."""
    points = [p for line in panel.lines for p in line.points]
    if not points:
        return ""
    low, high = math.floor(10 * min(p.x for p in points)), math.ceil(10 * max(p.x for p in points) + 1e-9)
    # a share s stands where 2^s stands among strengths
    scale = Scale((low / 10, high / 10), max([0.25, *(p.y for p in points)]), LEFT + PLOT, HEIGHT - BOTTOM)
    ticks = {2 ** (tenth / 10): f"{10 * tenth}" for tenth in range(low, high + 1)}
    lines = [line._replace(points=[p._replace(x=2**p.x) for p in line.points]) for line in panel.lines]
    drawn = [_axes(panel.title, (panel.y_label, x_label), scale, ticks), *(_curve(line, scale) for line in lines)]
    width, labels = _width([line.name for line in lines]), f"{escape(panel.y_label)} against {escape(x_label)}"
    return (
        f'<svg{XMLNS} class="rs-figure" viewBox="0 0 {width} {HEIGHT}" width="{width}" role="img" aria-label="{labels}">'
        f"<style>{_style()}</style>{''.join(drawn)}{_labels(lines, panel.clean, scale)}</svg>"
    )


def _width(names: Sequence[str]) -> int:
    """Of a panel with these names at its right, pixels."""
    return LEFT + PLOT + 34 + round(6.9 * max(len(_cut(name)) for name in names))


class Scale(NamedTuple):
    """Where values stand in a panel: log2 of the strengths it spans, the largest value, its right and bottom edge."""

    octaves: tuple[float, float]
    top: float
    right: float
    bottom: float

    def across(self, x: float) -> float:
        """Pixels from the left for a strength."""
        low, high = self.octaves
        return LEFT + (math.log2(x) - low) / (high - low) * (self.right - LEFT)

    def down(self, y: float) -> float:
        """Pixels from the top for a value."""
        return self.bottom - y / self.top * (self.bottom - TOP)


def _axes(title: str, labels: tuple[str, str], scale: Scale, ticks: dict[float, str] | None = None) -> str:
    """Title, rules, and the axes with their labels (y, x); `ticks` at other places than at octaves."""
    right, bottom = scale.right, scale.bottom
    octaves = range(math.ceil(scale.octaves[0]), math.floor(scale.octaves[1]) + 1)
    parts = [
        f'<text class="rs-title" x="{LEFT}" y="18">{escape(title)}</text>',
        f'<text class="rs-axis" x="{LEFT}" y="34">{escape(labels[0])}</text>',
    ]
    for quarter in range(int(scale.top * 4 + 1e-9) + 1):
        y = scale.down(quarter / 4)
        parts.append(f'<path class="rs-rule" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="rs-tick" x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{25 * quarter}</text>')
    for strength, text in (ticks or {2.0**octave: f"{2.0**octave:g}" for octave in octaves}).items():
        x = scale.across(strength)
        parts.append(f'<path class="rs-mark" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text class="rs-tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
    middle = (LEFT + right) / 2
    parts.append(
        f'<text class="rs-axis" x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(labels[1])}</text>'
    )
    return "".join(parts)


def _curve(line: Line, scale: Scale) -> str:
    at = [(scale.across(p.x), scale.down(p.y)) for p in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
    dashes = f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
    parts = [f'<path class="rs-line" d="{path}"{dashes}/>']
    low = [f"{scale.across(p.x):.1f} {scale.down(p.worst):.1f}" for p in line.points if math.isfinite(p.worst)]
    if low:
        parts.append(f'<path class="rs-worst" d="M{"L".join(low)}"/>')
    for (x, y), point in zip(at, line.points, strict=True):
        if math.isfinite(point.low):
            ends = f"M{x:.1f} {scale.down(point.low):.1f}V{scale.down(point.high):.1f}"
            parts.append(f'<path class="rs-whisker" d="{ends}"/>')
        parts.append(f'<g class="rs-point">{_mark(line.mark, x, y)}<title>{escape(point.text)}</title></g>')
    return f'<g class="{line.colour}">{"".join(parts)}</g>'


def _mark(number: int, x: float, y: float) -> str:
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>',
        f'<path d="M{x - 3.1:.1f} {y - 3.1:.1f}h6.2v6.2h-6.2z"/>',
        f'<path d="M{x:.1f} {y - 4.2:.1f}l4 7h-8z"/>',
        f'<path d="M{x:.1f} {y - 4.4:.1f}l4.4 4.4l-4.4 4.4l-4.4 -4.4z"/>',
        f'<path d="M{x:.1f} {y + 4.2:.1f}l4 -7h-8z"/>',
    )
    return shapes[number % len(shapes)]


def _labels(lines: Sequence[Line], clean: float, scale: Scale) -> str:
    """The name of each line at its end, moved apart where they would overlap; the clean level is one of them."""
    ends: list[tuple[float, Line | None]] = [(scale.down(line.points[-1].y), line) for line in lines]
    if math.isfinite(clean):
        ends.append((scale.down(clean), None))
    ends.sort(key=lambda pair: pair[0])
    places = moved_apart([y for y, _ in ends], gap=14, low=TOP - 8, high=scale.bottom)
    parts = []
    for (y, line), place in zip(ends, places, strict=True):
        if line is None:
            parts.append(f'<path class="rs-level" d="M{LEFT} {y:.1f}H{scale.right}"/>')
            parts.append(f'<text class="rs-tick" x="{scale.right + 5}" y="{place + 3.8:.1f}">clean</text>')
            continue
        x = scale.across(line.points[-1].x)
        parts.append(
            f'<g class="{line.colour}">'
            f'<path class="rs-leader" d="M{x + 6:.1f} {y:.1f}L{scale.right + 8} {place:.1f}h5"/>'
            f'<g class="rs-point">{_mark(line.mark, scale.right + 17, place)}</g>'
            f'<text class="rs-name" x="{scale.right + 25}" y="{place + 3.8:.1f}">{escape(_cut(line.name))}'
            f"<title>{escape(line.name)}</title></text></g>"
        )
    return "".join(parts)


def _cut(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def moved_apart(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Ascending places near the wanted ones, at least `gap` apart, within the bounds as far as there is room."""
    places: list[float] = []
    for value in wanted:
        places.append(max(value, low if not places else places[-1] + gap))
    limit = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    return places


def _style() -> str:
    def colours(attacks: Sequence[str], noises: Sequence[str]) -> str:
        pairs = [(f"rs-a{i}", c) for i, c in enumerate(attacks)] + [(f"rs-n{i}", c) for i, c in enumerate(noises)]
        return "".join(f".{name}{{color:{colour}}}" for name, colour in pairs)

    return (
        ".rs-figure{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',sans-serif;color:#1d2127;"
        "max-width:100%;height:auto}.rs-figure text{fill:currentColor}.rs-title{font-weight:600;font-size:13.5px}"
        ".rs-tick,.rs-axis{opacity:.66;font-size:11px}.rs-rule{stroke:currentColor;opacity:.1}"
        ".rs-mark{stroke:currentColor;opacity:.4}.rs-level{stroke:currentColor;opacity:.55;stroke-dasharray:1.5 3}"
        ".rs-line{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round}"
        ".rs-worst{fill:none;stroke:currentColor;stroke-width:.9;opacity:.7}"
        ".rs-whisker{stroke:currentColor;stroke-width:1.2;opacity:.45}.rs-leader{fill:none;stroke:currentColor;"
        "stroke-width:.8;opacity:.4}.rs-point{fill:currentColor}.rs-point:hover{stroke:currentColor;stroke-width:3}"
        ".rs-name{font-size:11.5px}"
        + colours(ATTACKS, NOISES)
        + "@media (prefers-color-scheme:dark){.rs-figure{color:#e4e7eb}"
        + colours(ATTACKS_DARK, NOISES_DARK)
        + "}"
    )
