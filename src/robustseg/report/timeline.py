"""What a watched stream showed: its figures, and one self-contained page with the timeline. No torch.

Read from the lines that `robustseg monitor` left in its folder, once through and thinned to a fixed number of columns, so
that a day of video takes no more memory than a minute.
"""

import json
import math
from collections import deque
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robustseg.core.errors import RobustsegError
from robustseg.report.page import document, write_page
from robustseg.report.words import DASH
from robustseg.results.watched import about_of, events_of, frames_of

COLUMNS, LATENCIES, EVENTS, ENDS = 900, 10_000, 400, 20
"""At most: columns of the timeline, last frames that latencies come from, events in the table;
and the frames at each end that an agreement is the mean over."""


class Column(NamedTuple):
    """A few frames that share one column: scores from low to high (NaN: none), and what held in any of them."""

    first: int
    low: float
    high: float
    alarm: str
    injected: bool
    trouble: bool


class Speed(NamedTuple):
    """How fast it went; NaN where nothing was timed.

    Args:
        rate: frames a second, everything included but the making of attacks.
        median, slowest: seconds from a frame to its verdict; of 99 % of the frames at most.
        ratio: the three forwards alone over everything that a frame takes, timed on the same frames; the median.
    """

    rate: float
    median: float
    slowest: float
    ratio: float


class Learning(NamedTuple):
    """What the adaptive network learnt on the way: updates, and its agreement with the teacher at both ends."""

    updates: int
    first: float
    last: float


class Timeline(NamedTuple):
    """What is known of a stream.

    Args:
        about: what was watched with what, as in `stream.json`.
        frames: how many have a line. unread: how many of them gave no verdict.
        step: frames a column. columns: in order. events: the last ones. counts: all events, by kind.
        limits: of the quiet scores, or None. learning: None where the adaptive network stayed as it was.
    """

    about: dict[str, Any]
    frames: int
    unread: int
    step: int
    columns: list[Column]
    events: list[dict[str, Any]]
    counts: dict[str, int]
    limits: dict[str, float] | None
    speed: Speed
    learning: Learning | None


def read_timeline(folder: str | Path) -> Timeline:
    """The timeline of a folder that `robustseg monitor` wrote, of a stopped stream too.

    Raises:
        RobustsegError: there is none, or a line of it is torn or changed since it was written.
    """
    folder = Path(folder)
    lines = folder / "frames.jsonl"
    if not lines.is_file() or not (folder / "stream.json").is_file():
        raise RobustsegError(
            f"expected a watched stream in {folder}, got none; try: robustseg monitor … --out {folder}"
        )
    about = about_of(folder)
    last = max((line["frame"] for line in frames_of(folder, about, torn=True)), default=-1)
    step = max(1, -(-(last + 1) // COLUMNS))
    columns, unread, frames = [], 0, 0
    latencies: deque[float] = deque(maxlen=LATENCIES)
    ratios: deque[float] = deque(maxlen=LATENCIES)
    seconds, updates = 0.0, 0
    ends: tuple[list[float], deque[float]] = ([], deque(maxlen=ENDS))
    for _, group in groupby(frames_of(folder, about, torn=True), key=lambda line: line["frame"] // step):
        few = list(group)
        columns.append(_column(few))
        frames += len(few)
        unread += sum("problem" in line for line in few)
        for line in (line for line in few if "problem" not in line):
            latencies.append(line["latency"])
            seconds += line["seconds"]
            updates += line.get("updated", False)
            if "agreement" in line:
                ends[1].append(line["agreement"])
                if len(ends[0]) < ENDS:
                    ends[0].append(line["agreement"])
            if "bare" in line and line["seconds"]:
                ratios.append(line["bare"] / line["seconds"])
    counts, events, limits = _events(events_of(folder, about, torn=True))
    slow = np.array(latencies or [math.nan])
    speed = Speed(
        rate=(frames - unread) / seconds if seconds else math.nan,
        median=float(np.median(slow)),
        slowest=float(np.quantile(slow, 0.99)),
        ratio=float(np.median(ratios or [math.nan])),
    )
    learning = Learning(updates, *(sum(end) / len(end) for end in ends)) if ends[0] else None
    return Timeline(about, frames, unread, step, columns, events, counts, limits, speed, learning)


def _column(lines: Sequence[dict[str, Any]]) -> Column:
    scores = [line["score"] for line in lines if line.get("score") is not None]
    return Column(
        first=lines[0]["frame"],
        low=min(scores, default=math.nan),
        high=max(scores, default=math.nan),
        alarm=next((line["alarm"] for line in lines if line.get("alarm")), ""),
        injected=any(line.get("injected") for line in lines),
        trouble=any("problem" in line or line["failed"] for line in lines),
    )


def _events(told: Iterator[dict[str, Any]]) -> tuple[dict[str, int], list[dict[str, Any]], dict[str, float] | None]:
    counts: dict[str, int] = {}
    events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
    limits = None
    for event in told:
        counts[event["kind"]] = counts.get(event["kind"], 0) + 1
        limits = event.get("limits", limits)
        events.append(event)
    return counts, list(events), limits


def outcome(timeline: Timeline) -> list[str]:
    """What happened, in sentences: the attack noticed or not, false alarms, and what could not be read."""
    attack = timeline.about.get("attack")
    alarms = [e for e in timeline.events if e["kind"] == "alarm"]
    own = [e for e in alarms if attack and attack["first"] <= e["frame"] < attack["end"]]
    others = timeline.counts.get("alarm", 0) - len(own)
    sentences = list(_attack_sentences(timeline, own)) if attack and timeline.frames > attack["first"] else []
    several = f"{others} alarm{'s' * (others != 1)}" if others else "No alarm"
    outside = " outside the attack" if sentences else ""
    sentences.append(f"{several}{outside} in {timeline.frames} frames.")
    if timeline.unread:
        sentences.append(f"{timeline.unread} frame{'s' * (timeline.unread != 1)} without a verdict.")
    if failed := [event for event in timeline.events if event["kind"] == "failed"]:
        times, latest = timeline.counts["failed"], failed[-1]
        sentences.append(
            f"A member failed {times} time{'s' * (times != 1)}, the last time the {latest['member']} at frame "
            f"{latest['frame']}: {latest.get('reason') or 'no reason given'}."
        )
    if timeline.learning:
        updates, first, last = timeline.learning
        falls = timeline.counts.get("fallback", 0)
        sentences.append(
            f"The adaptive network learnt in {updates} updates and fell back {falls} time{'s' * (falls != 1)}; "
            f"it agreed with the teacher on {100 * first:.1f} % of the pixels at the start, {100 * last:.1f} % at the end."
        )
    return sentences


def _attack_sentences(timeline: Timeline, own: Sequence[dict[str, Any]]) -> Iterator[str]:
    attack = timeline.about["attack"]
    right = [e for e in own if e.get("member") == attack["target"]]
    if not own:
        yield f"The attack on the {attack['target']} was not noticed."
        return
    delay = (right or own)[0]["frame"] - attack["first"]
    when = "in its first frame" if delay == 0 else f"{delay} frame{'s' * (delay != 1)} after it began"
    blamed = "" if right else f", but the {own[0].get('member', 'wrong one')} was blamed"
    yield f"The attack on the {attack['target']} was noticed {when}{blamed}."
    clears = [e["frame"] for e in timeline.events if e["kind"] == "clear" and e["frame"] > own[-1]["frame"]]
    if not clears and timeline.frames > attack["end"]:
        yield "The alarm did not clear after it ended."
    elif clears and clears[0] < attack["end"]:
        yield f"The alarm ended {attack['end'] - clears[0]} frames before the attack did."
    elif clears:
        after = clears[0] - attack["end"] + 1
        yield f"All clear {after} frame{'s' * (after != 1)} after it ended."


def write_timeline(folder: str | Path) -> Path:
    """Write `FOLDER/timeline.html` from what the folder holds.

    Raises:
        RobustsegError: it holds no stream, or the page cannot be written.
    """
    timeline = read_timeline(folder)
    first, *more = outcome(timeline)
    leads = "".join(f'<p class="lead">{escape(sentence)}</p>' for sentence in more)
    speed = timeline.speed
    facts = {
        "stream": timeline.about["source"],
        "frames": f"{timeline.frames}",
        "quiet frames at the start": f"{timeline.about['quiet']}" if timeline.about["quiet"] else "none",
        "frames a second": _number(speed.rate, 1),
        "frame to verdict": f"{_number(1000 * speed.median, 0)} ms, 99 % within {_number(1000 * speed.slowest, 0)} ms",
        "bare forwards over everything": _number(speed.ratio, 2),
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items())
    note = (
        "The score says whether the teacher or the student is farther from the adaptive network. Above the band it speaks "
        "against the teacher, below it against the student. Red: an alarm held. Orange: an attack was injected. "
        "Purple: a frame or a member gave nothing."
    )
    if timeline.step > 1:
        note += f" Each column shows the lowest and highest score of {timeline.step} frames."
    body = (
        f'<header><p class="kicker">Three networks watch a stream</p><h1>{escape(first)}</h1>{leads}'
        f'<dl class="facts">{listed}</dl></header>'
        f'<section><h2>Timeline</h2><p class="note">{note}</p><div class="figure">{figure(timeline)}</div>'
        f"<h2>Events</h2>{_table(timeline)}<h2>Conditions</h2><pre>{escape(json.dumps(timeline.about, indent=2))}</pre>"
        "</section>"
    )
    path = Path(folder) / "timeline.html"
    write_page(path, document("robustseg monitor", body))
    return path


WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 1060, 270, 44, 14, 40
STYLE = """
.tl-band { fill: var(--bar); opacity: .75 } .tl-alarm { fill: #c4312a; opacity: .3 } .tl-attack { fill: #e8a13a }
.tl-trouble { fill: #7b4bb3 } .tl-line { fill: none; stroke: var(--ink); stroke-width: 1.6; stroke-linejoin: round }
.tl-rule { stroke: var(--line); fill: none } .tl-event { stroke: #c4312a; stroke-width: 1.2 }
.tl-text { fill: var(--soft); font: 12px system-ui, sans-serif } .tl-hover { fill: transparent }
"""


def figure(timeline: Timeline) -> str:
    """The timeline as SVG, for a page that has the colours of the house."""
    columns = timeline.columns
    if not columns:
        return '<p class="note">No frame yet.</p>'
    count = columns[-1].first // timeline.step + 1
    limits = timeline.limits or {}
    values = [v for c in columns for v in (c.low, c.high) if math.isfinite(v)]
    marks = [0.0, *values, *(limits[name] for name in ("lower", "upper") if name in limits)]
    low, high = math.floor(10 * min(marks)) / 10, max(0.5, math.ceil(10 * max(marks)) / 10)
    right, floor = WIDTH - 10, HEIGHT - BOTTOM
    wide = (right - LEFT) / count

    def x(column: Column) -> float:
        return LEFT + column.first / timeline.step * wide

    def y(value: float) -> float:
        return floor - (value - low) / (high - low) * (floor - TOP)

    parts = []
    if limits:
        top, bottom = y(min(high, limits["upper"])), y(max(low, limits["lower"]))
        parts.append(f'<path class="tl-band" d="M{LEFT} {top:.1f}H{right}V{bottom:.1f}H{LEFT}z"/>')
    places = {"tl-alarm": (TOP, floor - TOP), "tl-attack": (floor + 2, 6), "tl-trouble": (TOP - 8, 6)}
    for name, held in (("tl-alarm", "alarm"), ("tl-attack", "injected"), ("tl-trouble", "trouble")):
        top, tall = places[name]
        for holds, run in groupby(columns, key=lambda c: bool(getattr(c, held))):
            if holds:
                span = list(run)
                across = x(span[-1]) + wide - x(span[0])
                parts.append(
                    f'<path class="{name}" d="M{x(span[0]):.1f} {top:.1f}h{across:.1f}v{tall}h{-across:.1f}z"/>'
                )
    apart = 0.2 if high - low <= 1.6 else 0.5
    for value in apart * np.arange(math.ceil(low / apart), math.floor(high / apart) + 1):
        parts.append(f'<path class="tl-rule" d="M{LEFT} {y(value):.1f}H{right}"/>')
        parts.append(
            f'<text class="tl-text" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>'
        )
    known = [c for c in columns if math.isfinite(c.low)]
    path = "L".join(f"{x(c) + wide / 2:.1f} {y(v):.1f}" for c in known for v in dict.fromkeys((c.low, c.high)))
    parts.append(f'<path class="tl-line" d="M{path}"/>' if known else "")
    parts += [_tick(timeline, share, x, floor) for share in range(6)]
    parts += [_hover(c, x(c), wide, floor) for c in columns]
    return (
        f'<svg class="rs-figure" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="score of each frame"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


def _tick(timeline: Timeline, share: int, x: Any, floor: float) -> str:
    column = timeline.columns[min(len(timeline.columns) - 1, share * len(timeline.columns) // 5)]
    anchor = "end" if share == 5 else "middle" if share else "start"
    text = f"frame {column.first}" if share in (0, 5) else f"{column.first}"
    return f'<text class="tl-text" x="{x(column):.1f}" y="{floor + 26}" text-anchor="{anchor}">{text}</text>'


def _hover(column: Column, x: float, wide: float, floor: float) -> str:
    score = "no score" if not math.isfinite(column.low) else f"score {column.low:.3f}"
    if column.high > column.low:
        score += f" to {column.high:.3f}"
    text = f"frame {column.first}: {score}" + (f"\nalarm: {column.alarm}" if column.alarm else "")
    return f'<path class="tl-hover" d="M{x:.1f} {TOP}h{wide:.2f}V{floor}h-{wide:.2f}z"><title>{escape(text)}</title></path>'


def _table(timeline: Timeline) -> str:
    words = {"quiet": "limits learnt", "alarm": "alarm", "clear": "all clear", "end": "end of the stream"}
    rows = []
    for event in timeline.events:
        detail = event.get("reason", "")
        if event.get("limits"):
            limits = event["limits"]
            detail = (
                f"quiet from {limits['lower']:.3f} to {limits['upper']:.3f}, decision value {limits['decision']:.3f}"
            )
        delay = f"{1000 * event['latency']:.0f} ms" if "latency" in event else ""
        score = f"{event['score']:.3f}" if event.get("score") is not None else ""
        cells = (words.get(event["kind"], event["kind"]), event.get("member", ""), detail)
        texts = "".join(f'<td class="text">{escape(str(cell))}</td>' for cell in cells)
        rows.append(f"<tr><td>{event['frame']}</td>{texts}<td>{score}</td><td>{delay}</td></tr>")
    heads = ("event", "member", "")
    head = "".join(f'<th scope="col" class="text">{name}</th>' for name in heads)
    total = sum(timeline.counts.values())
    more = f'<p class="note">The last {EVENTS} of {total}.</p>' if total > EVENTS else ""
    return (
        f'{more}<div class="scroll short"><table><thead><tr><th scope="col">frame</th>{head}<th scope="col">score</th>'
        f'<th scope="col">latency</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _number(value: float, digits: int) -> str:
    return DASH if math.isnan(value) else f"{value:.{digits}f}"
