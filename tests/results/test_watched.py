"""What a watched stream leaves: changed lines are refused, those of earlier versions are read or refused, never half."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line
from robustseg.report.timeline import read_timeline, write_timeline

SEEN = {
    "attacked": "none",
    "failed": [],
    "alarm": "",
    "up": 0.0,
    "down": 0.0,
    "injected": False,
    "latency": 0.1,
    "seconds": 0.2,
}
FILES: dict[str, list[dict[str, Any]]] = {
    "stream.json": [{"format": 1, "source": "x", "quiet": 2, "attack": {"target": "teacher", "first": 5, "end": 10}}],
    "frames.jsonl": [
        {"frame": 0, "problem": "torn"},
        *({"frame": i, "score": 0.1, **SEEN, "bare": 0.1, "agreement": 0.9, "updated": True} for i in range(1, 8)),
    ],
    "events.jsonl": [
        {"frame": 2, "kind": "quiet", "limits": {"lower": 0.0, "upper": 0.2, "decision": 1.0}},
        {"frame": 6, "kind": "alarm", "member": "teacher", "score": 0.5, "latency": 0.1, "reason": "x"},
        {"frame": 7, "kind": "end"},
    ],
}
MISSING = object()
WRONG = (None, "x", "", -1, 1e30, 10**30, 0, 5, [], {}, [1], True, float("nan"), "<script>alert(1)</script>", MISSING)


def write(
    folder: Path, files: dict[str, list[dict[str, Any]]], line: Any = lambda data: json.dumps(data) + "\n"
) -> None:
    for name, lines in files.items():
        (folder / name).write_text("".join(map(line, lines)))


def places(data: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield (*above, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*above, key))


PLACES = [place for place in places(FILES) if len(place) > 2 and not (place[0] == "frames.jsonl" and place[1] > 1)]


def changed(place: tuple[Any, ...], value: Any) -> dict[str, list[dict[str, Any]]]:
    files: Any = copy.deepcopy(FILES)
    here = files
    for key in place[:-1]:
        here = here[key]
    if value is MISSING:
        del here[place[-1]]
    else:
        here[place[-1]] = value
    return files  # type: ignore[no-any-return]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_changed_line_without_a_digest_is_refused_or_shown(tmp_path: Path, place: tuple[Any, ...]) -> None:
    refused = []
    for value in WRONG:
        write(tmp_path, changed(place, value))
        try:
            write_timeline(tmp_path)
            assert "<script>alert" not in (tmp_path / "timeline.html").read_text()
        except RobustsegError as error:
            refused.append(str(error))
    assert refused
    assert all("; try" in said for said in refused)


def test_no_changed_line_with_a_digest_passes(tmp_path: Path) -> None:
    sealed = {**FILES, "stream.json": [{**FILES["stream.json"][0], "format": 2}]}
    write(tmp_path, sealed, json_line)
    assert read_timeline(tmp_path).frames == 8
    for name in FILES:
        text = (tmp_path / name).read_text()
        for other in (text.replace(":", ": ", 1), text.replace('"digest"', '"other"'), text.replace("x", "y", 1)):
            if other != text:
                (tmp_path / name).write_text(other)
                with pytest.raises(RobustsegError, match=rf"expected line \d of .*{name} as it was written"):
                    read_timeline(tmp_path)
        (tmp_path / name).write_text(text)
    (tmp_path / "frames.jsonl").write_text('{"frame":0,"problem":"x"}\n')
    with pytest.raises(RobustsegError, match="digest"):
        read_timeline(tmp_path)
