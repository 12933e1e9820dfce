"""The tables of a report as plain data; `page` puts them into HTML."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from robustseg.core.labels import LabelSpace
from robustseg.report.figures import q_interval, q_panels
from robustseg.report.words import DASH, family_names, network_names, percent
from robustseg.results import findings, metrics
from robustseg.results.current import consistent
from robustseg.results.findings import Finding
from robustseg.results.record import Record
from robustseg.results.summary import (
    clean_of,
    largest_score,
    mean_score,
    median_score,
    raised,
    unpredicted,
    worst_images,
)
from robustseg.results.worst import worst_cases


class Cell(NamedTuple):
    """One field: what is shown, what it sorts by (the text where None), more on hovering, and how it looks."""

    text: str
    value: float | None = None
    title: str = ""
    look: str = ""


class Table(NamedTuple):
    """Head and rows; the first `texts` columns hold words and stand left, the others figures."""

    head: list[str]
    rows: list[list[Cell]]
    texts: int = 1


@dataclass(frozen=True)
class Group:
    """Records that may stand in one table: the same data, classes, size and images; and what audits found on them.

    A network has one state in a group, the same weights and code. `state` tells groups of one title apart: by their time.
    """

    data: str
    label_space: LabelSpace
    size: tuple[int, int] | None
    ids: tuple[str, ...]
    records: list[Record]
    findings: list[Finding] = field(default_factory=list)
    state: str = ""


def groups(records: Sequence[Record], audited: Sequence[Finding] = ()) -> list[Group]:
    """Records apart by what may be compared, in order of appearance; networks of one name and two states stand apart, too."""
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        key = record.data, record.content, record.label_space.names, record.size, record.ids
        found.setdefault(key, []).append(record)
    parts = [part for own in found.values() for part in consistent(own)]
    alike = Counter(_looks(part) for part in parts)
    return [
        Group(
            own[0].data,
            own[0].label_space,
            own[0].size,
            own[0].ids,
            own,
            findings.on(own, audited),
            f", as of {min(r.started for r in own)}" if alike[_looks(own)] > 1 else "",
        )
        for own in parts
    ]


def _looks(own: Sequence[Record]) -> tuple[object, ...]:
    """What the title of a group says of it."""
    return own[0].data.partition("(")[0], own[0].size, len(own[0].ids)


def measurements(group: Group) -> Table:
    """One row a record: every figure of it."""
    names = network_names(group.records)
    head = [
        "network", "source", "perturbation", "images", "mIoU %", "95 % interval", "per image %", "pixels right %", "Q %",
        "audit", "agreement %", "RMS /255", "L∞ /255", "PSNR dB", "passes", "seconds", "flags",
    ]  # fmt: skip
    rows = []
    for record in group.records:
        clean = clean_of(record, group.records)
        rms = mean_score(record, "rms")
        found = miou_interval(record)
        source = "itself" if record.source in ("", record.network) else names[record.source]
        q = q_interval(record, clean) if clean else metrics.Interval(math.nan, math.nan, math.nan)
        rows.append(
            [
                Cell(names[record.network], title=record.network),
                Cell(source, title=record.source),
                Cell(record.perturbation, look="spec"),
                Cell(str(len(record.ids)), len(record.ids)),
                share(found.value),
                span(found),
                share(metrics.miou_per_image(record.counts)),
                share(metrics.pixel_accuracy(record.counts)),
                share(q.value, title=f"95 % interval {span(q).text}", look="bar"),
                _audit(record, group.findings),
                share(mean_score(record, "agreement")),
                _of_255(rms),
                _of_255(largest_score(record, "linf"))._replace(
                    title=f"median {_of_255(median_score(record, 'linf')).text}"
                ),
                _decibel(record),
                Cell(
                    f"{record.forwards + record.backwards:,}",
                    record.forwards + record.backwards,
                    f"{record.forwards:,} forward, {record.backwards:,} backward",
                ),
                Cell(f"{record.seconds:,.1f}", record.seconds),
                _flags(record),
            ]
        )
    return Table(head, rows, 3)


def audit(group: Group) -> Table | None:
    """What audits found, doubts first; None where nobody audited."""
    order = (findings.SUSPICIOUS, findings.NOT_CHECKED, findings.OK)
    names = network_names(group.records)
    rows = [
        [
            Cell(names[found.network], title=found.network),
            Cell(found.perturbation or "the network itself", look="spec" if found.perturbation else "quiet"),
            Cell(found.check.replace("_", " ")),
            Cell(found.status, look="flag" if found.status == findings.SUSPICIOUS else "quiet"),
            Cell(found.text + (f" Next: {found.advice}." if found.advice else ""), title=found.control, look="prose"),
        ]
        for found in sorted(group.findings, key=lambda found: order.index(found.status))
    ]
    return Table(["network", "number", "control", "status", "what was seen"], rows, 5) if rows else None


def miou_interval(record: Record, images: Sequence[int] | None = None) -> metrics.Interval:
    """Pooled mIoU with its block-bootstrap interval."""
    samples = metrics.image_miou(metrics.resample(record.counts, images))
    return metrics.interval(metrics.miou(record.counts, images), samples)


def halving(group: Group) -> Table:
    """The realised RMS at which each network has lost half its mIoU, by family; read off the lines of the Q figure."""
    panels = q_panels(group.records)
    rows = []
    for name in family_names(group.records).values():
        cells = [Cell(name)]
        for panel in panels:
            points = next((line.points for line in panel.lines if line.name == name), [])
            cells.append(_crossing([(p.x, p.y) for p in points]))
        rows.append(cells)
    return Table(["RMS /255 at which Q is 50 %", *(panel.title for panel in panels)], rows)


def _crossing(points: Sequence[tuple[float, float]], level: float = 0.5) -> Cell:
    if not points:
        return Cell(DASH)
    if points[0][1] <= level:
        return Cell(f"< {points[0][0]:.2f}", points[0][0], "below 50 % at the weakest that was measured")
    for (x0, y0), (x1, y1) in pairwise(points):
        if y1 <= level:
            x = 2 ** (math.log2(x0) + (y0 - level) / (y0 - y1) * (math.log2(x1) - math.log2(x0)))
            return Cell(f"{x:.2f}", x)
    return Cell(f"> {points[-1][0]:.2f}", points[-1][0] * 2, "not reached at the strongest that was measured", "quiet")


def by_sequence(group: Group) -> Table | None:
    """mIoU and Q of each sequence apart, then all; None where there is one sequence or too many to read."""
    found = sequences_to_show(group.ids)
    if not found:
        return None
    parts = [*((f"{name} ({len(images)})", images) for name, images in found.items()), ("all", None)]
    names = network_names(group.records)
    head = ["network", "perturbation"]
    for name, _ in parts:
        head += [f"{name} mIoU %", "95 % interval", "Q %"]
    rows = []
    for record in group.records:
        clean = clean_of(record, group.records)
        cells = [Cell(names[record.network], title=record.network), Cell(record.perturbation, look="spec")]
        for _, images in parts:
            found_miou = miou_interval(record, images)
            q = metrics.q(record.counts, clean.counts, images) if clean else math.nan
            cells += [share(found_miou.value), span(found_miou), share(q, look="bar")]
        rows.append(cells)
    return Table(head, rows, 2)


def sequences_to_show(ids: Sequence[str], *, most: int = 6) -> dict[str, list[int]]:
    """Sequences with their images, the longest first; by the first part of the ids (the city) where there are many."""
    found = metrics.sequences(ids)
    if len(found) > most:
        found = {}
        for i, image_id in enumerate(ids):
            found.setdefault(image_id.partition("_")[0], []).append(i)
    if not 2 <= len(found) <= most:
        return {}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[1])))


def strongest(group: Group) -> list[tuple[Record, Record]]:
    """For each network its clean record and the record that leaves the lowest pooled mIoU."""
    pairs = []
    for spec in dict.fromkeys(r.network for r in group.records):
        own = [r for r in group.records if r.network == spec and not r.clean and clean_of(r, group.records)]
        if own:
            worst = min(own, key=lambda r: metrics.miou(r.counts))
            clean = clean_of(worst, group.records)
            if clean:
                pairs.append((clean, worst))
    return pairs


def classes(group: Group) -> Table | None:
    """IoU of each class, clean against the strongest perturbation of each network."""
    pairs = strongest(group)
    if not pairs:
        return None
    names = network_names(group.records)
    head = ["class", "labelled pixels %"]
    for clean, worst in pairs:
        head += [f"{names[clean.network]} clean", worst.perturbation, "left %"]
    pixels = metrics.totals(pairs[0][0].counts)
    labelled = (pixels.tp + pixels.fn) / max(1, int((pixels.tp + pixels.fn).sum()))
    ious = [(metrics.class_iou(clean.counts), metrics.class_iou(worst.counts)) for clean, worst in pairs]
    rows = []
    for i, name in enumerate(group.label_space.names):
        cells = [Cell(name, look=f"class:{i}"), share(float(labelled[i]), digits=2)]
        for before, after in ious:
            left = float(after[i] / before[i]) if before[i] > 0 else math.nan
            cells += [share(float(before[i])), share(float(after[i])), share(left, look="bar")]
        rows.append(cells)
    means = [Cell("mean", look="total"), Cell("")]
    for clean, worst in pairs:
        before_mean, after_mean = metrics.miou(clean.counts), metrics.miou(worst.counts)
        left = after_mean / before_mean if before_mean > 0 else math.nan
        means += [share(before_mean), share(after_mean), share(left, look="bar")]
    return Table(head, [*rows, means])


def worst(group: Group, *, number: int = 20) -> Table | None:
    """The images that lost most, each image once a network with the perturbation that hurt it most."""
    names = network_names(group.records)
    found: dict[tuple[str, str], tuple[float, float, float, Record]] = {}
    for record in group.records:
        clean = clean_of(record, group.records)
        if record.clean or clean is None:
            continue
        for drop in worst_images(record, clean, number):
            key = record.network, drop.id
            if key not in found or drop.before - drop.after > found[key][0]:
                found[key] = (drop.before - drop.after, drop.before, drop.after, record)
    order = sorted(found.items(), key=lambda item: -item[1][0])[:number]
    rows = [
        [
            Cell(image_id),
            Cell(names[network], title=network),
            Cell(record.perturbation, look="spec"),
            share(before),
            share(after),
            share(lost),
        ]
        for (network, image_id), (lost, before, after, record) in order
    ]
    head = ["image", "network", "perturbation", "mIoU before %", "after %", "lost, points"]
    return Table(head, rows, 3) if rows else None


def share(value: float, *, title: str = "", look: str = "", digits: int = 1) -> Cell:
    """A share in [0, 1] as a percentage."""
    return Cell(percent(value, digits), value if math.isfinite(value) else None, title, look)


def span(found: metrics.Interval) -> Cell:
    """The two ends of an interval in percent."""
    if not math.isfinite(found.low):
        return Cell(DASH, title="fewer than two blocks of 15 images", look="quiet")
    return Cell(f"{percent(found.low)} to {percent(found.high)}", found.high - found.low, look="quiet")


def _of_255(value: float) -> Cell:
    return Cell(f"{255 * value:.2f}", value) if math.isfinite(value) else Cell(DASH)


def _decibel(record: Record) -> Cell:
    value = metrics.psnr(record.scores.get("rms", [0.0] if record.clean else []))
    if not math.isfinite(value):
        return Cell("∞" if value == math.inf else DASH, 1e9 if value == math.inf else None)
    return Cell(f"{value:.1f}", value, "mean over the images that were changed")


def _flags(record: Record) -> Cell:
    if not record.flags:
        return Cell("not checked", look="quiet")
    names = raised(record)
    values = "; ".join(f"{name} = {value}" for name, value in record.flags.items())
    texts = [name.replace("_", " ") + _worth(record.flags[name]) for name in names]
    return Cell(", ".join(texts) or "none", len(names), values, "flag" if names else "quiet")


def _worth(value: object) -> str:
    return "" if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) else f" {value:.2g}"


def _audit(record: Record, audited: Sequence[Finding]) -> Cell:
    """The doubts that controls of an attack raised; `not checked` where there were none of this attack."""
    if record.kind != "attack":
        return Cell(DASH, look="quiet")
    known = findings.about(record, audited)
    names = [found.check.replace("_", " ") for found in findings.suspicious(known)]
    checked = any(found.record and found.status != findings.NOT_CHECKED for found in known)
    texts = [*names, *(() if checked else ("not checked",))]
    told = "; ".join(f"{found.check.replace('_', ' ')}: {found.status}" for found in known)
    return Cell(", ".join(texts) or "ok", len(names), told, "flag" if names else "quiet")


def within_budgets(group: Group) -> Table | None:
    """One row a network and budget; None where no budget was tried twice."""
    names = network_names(group.records)
    head = ["network", "within", "records tried", "worst mIoU %", "none below %", "worst Q %", "worst pixels right %"]
    rows = []
    for case in worst_cases(group.records):
        whole = not any(map(unpredicted, (case.clean, *case.tried)))
        clean = metrics.miou(case.clean.counts) if whole else math.nan
        rows.append(
            [
                Cell(names[case.network], title=case.network),
                Cell(case.budget, look="spec"),
                Cell(str(len(case.tried)), len(case.tried), "\n".join(r.perturbation for r in case.tried)),
                share(case.miou),
                share(case.bound, look="quiet"),
                share(case.miou / clean if clean > 0 else float("nan"), look="bar"),
                share(case.pixel_accuracy),
                Cell(case.strongest.perturbation, look="spec"),
                share(metrics.miou(case.counts)),
            ]
        )
    return Table([*head, "strongest record", "its mIoU %"], rows, 2) if rows else None
