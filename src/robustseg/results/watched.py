"""What a watched stream leaves behind, as plain data: what was watched, a line a frame, a line an event. No torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from robustseg.core.errors import RobustsegError
from robustseg.core.files import read_lines
from robustseg.core.schema import Amount, Between, Count, read_as

FORMAT = 2
"""Of the three files; those of format 1 are the same, in lines without a digest."""

Finite = Annotated[float, Between(-1e6, 1e6)]


class Attack(TypedDict):
    """The attack that was injected: the member it was made for, the first attacked frame and the first one after it."""

    target: str
    first: Count
    end: Count


class About(TypedDict):
    """What was watched with what: the first line of `stream.json`, which holds more."""

    format: int
    source: str
    quiet: Count
    attack: Attack | None


class Unread(TypedDict):
    """A frame without an assessment."""

    frame: Count
    problem: str


class Seen(TypedDict):
    """A frame with an assessment; `monitor.stream` says what the keys mean. Sums and scores are null where they are NaN."""

    frame: Count
    score: Finite | None
    attacked: str
    failed: list[str]
    alarm: str
    up: float
    down: float
    injected: bool
    latency: Amount
    seconds: Amount
    agreement: NotRequired[Finite]
    updated: NotRequired[bool]
    bare: NotRequired[Amount]
    content: NotRequired[str]


class Limits(TypedDict):
    """The limits of the CUSUM."""

    lower: Finite
    upper: Finite
    decision: Finite


class Event(TypedDict):
    """Something that happened at a frame."""

    frame: Count
    kind: str
    member: NotRequired[str]
    reason: NotRequired[str]
    score: NotRequired[Finite | None]
    latency: NotRequired[Amount]
    limits: NotRequired[Limits]


def about_of(folder: Path) -> dict[str, Any]:
    """What was watched in a folder.

    Raises:
        RobustsegError: its `stream.json` is none of this package's, or changed since it was written.
    """
    path = folder / "stream.json"
    lines = list(read_lines(path, _about, unsealed=_early))
    if len(lines) != 1:
        raise RobustsegError(f"expected one line in {path}, got {len(lines)}; try another --out")
    found: dict[str, Any] = lines[0]
    return found


def frames_of(folder: Path, about: dict[str, Any], *, torn: bool = False) -> Iterator[dict[str, Any]]:
    """The lines of the frames, in order.

    Args:
        folder: of the stream. about: of the stream. torn: leave out a last line that a crash tore off.

    Raises:
        RobustsegError: a line is torn, changed since it was written, or of no frame.
    """
    return read_lines(folder / "frames.jsonl", _frame, unsealed=lambda line: _early(about), torn=torn)


def events_of(folder: Path, about: dict[str, Any], *, torn: bool = False) -> Iterator[dict[str, Any]]:
    """The events in order, none where there is no file; otherwise as for `frames_of`."""
    path = folder / "events.jsonl"
    if not path.is_file():
        return iter(())
    return read_lines(path, lambda data: read_as(Event, data), unsealed=lambda line: _early(about), torn=torn)


def _about(data: dict[str, Any]) -> Any:
    if data.get("format") != FORMAT and not _early(data):
        raise RobustsegError(f"expected a stream of format 1 or {FORMAT}, got another")
    return read_as(About, data)


def _frame(data: dict[str, Any]) -> Any:
    return read_as(Unread if "problem" in data else Seen, data)


def _early(about: dict[str, Any]) -> bool:
    return type(about.get("format")) is int and about["format"] == 1
