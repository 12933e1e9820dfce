"""Whose folder it is: nothing is replaced that the same command did not write.

A command writes into a new folder, into one that it began itself, or beside files of other names. It knows its own folder by
its head, a file that it writes first. A head with `about` also says what the result is of: the same command again goes on
or has nothing to do, and another one is refused.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustseg.core.errors import RobustsegError
from robustseg.core.files import json_line, read_lines, write_whole


def require_own(head: Path, files: Sequence[str]) -> None:
    """Refuse to replace files that something else made.

    Args:
        head: the file by which a command knows a folder of its own.
        files: names or patterns, relative to the folder, of what the command writes there after the head.

    Raises:
        RobustsegError: one of the files is there, and the head is not.
    """
    if head.exists():
        return
    if found := _first(head.parent, files):
        raise RobustsegError(
            f"expected a new folder or one with {head.name}, got '{found}' of something else in '{head.parent}'; "
            "try another --out"
        )


def claim(head: Path, about: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """Make a folder the place of one result, or find that it is.

    Args:
        head: the file by which the folder is known; written if it is not there.
        about, files: as for `result_in`.

    Returns:
        What else the head holds: the finished result, where a command writes it there; else nothing.

    Raises:
        RobustsegError: as for `result_in`.
    """
    known = result_in(head, about, files)
    if known is None:
        write_whole(head, json_line({"about": about}))
    return known or {}


def result_in(head: Path, about: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any] | None:
    """What a folder holds of a result.

    Args:
        head: the file by which the folder is known.
        about: what decides the result, by name, as plain data.
        files: names or patterns, relative to the folder, of what is written there after the head. Before any is there, the
            folder can be claimed for another result.

    Returns:
        What the head holds beside `about`; None where the folder can be claimed.

    Raises:
        RobustsegError: the folder holds something else, or a result of other conditions, which is named.
    """
    require_own(head, files)
    if not head.exists():
        return None
    wanted, known = json.loads(json_line({"about": about}))["about"], _read(head)
    before = known.pop("about")
    changed = next((name for name in {**wanted, **before} if before.get(name) != wanted.get(name)), None)
    if changed is None:
        return known
    if not known and not _first(head.parent, files):
        return None
    raise RobustsegError(
        f"expected {changed} {before.get(changed)!r} of the run in '{head.parent}', got {wanted.get(changed)!r}; "
        "try another folder, or the same again"
    )


def _read(head: Path) -> dict[str, Any]:
    lines = list(read_lines(head)) if head.is_file() else []
    if len(lines) != 1 or not isinstance(lines[0].get("about"), dict):
        raise RobustsegError(f"expected '{head}' as a run wrote it, got something else; try another --out")
    known: dict[str, Any] = lines[0]
    return known


def _first(folder: Path, files: Sequence[str]) -> str:
    """The first of the files that is there."""
    found = (path for pattern in files for path in sorted(folder.glob(pattern)))
    return next((str(path.relative_to(folder)) for path in found), "")
