"""Files that survive a crash: append a line, write a whole file or nothing, one writer a folder."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustseg.core.errors import RobustsegError


def json_line(data: Any) -> str:
    """One line of JSON, NaN and infinities as null."""
    return json.dumps(_null_for_nan(data), allow_nan=False, separators=(",", ":")) + "\n"


def _null_for_nan(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {k: _null_for_nan(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_null_for_nan(v) for v in data]
    return data


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Within: no other process writes a run into this folder. A process that dies gives it up.

    Raises:
        RobustsegError: another process does.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock; two runs in one folder are then the user's to avoid
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RobustsegError(
            f"expected to be alone in {folder}, got another run that writes there; try another --out, or wait for it"
        ) from error
    finally:
        os.close(descriptor)


def append_line(path: Path, data: Any) -> None:
    """Append one line and force it to disk; a line that a crash tore off before is cut away first.

    Raises:
        RobustsegError: the disk is full or the file cannot be written; what was there before stays.
    """
    line = json_line(data).encode()
    try:
        with open(path, "ab") as file:
            start = _end_of_last_line(path)
            if start is not None:
                file.truncate(start)
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                _cut(path, start)
                raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a file beside its place, then rename it: it is there whole or not at all.

    Raises:
        RobustsegError: the disk is full or the file cannot be written; what was there before stays.
    """
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def text_of(path: Path) -> str:
    """The text of a file that somebody else wrote: UTF-8, or UTF-16 or UTF-32 as Windows writes it, without its mark.

    Raises:
        OSError: it cannot be read. ValueError: it is no such text.
    """
    raw = path.read_bytes()
    return raw.decode(json.detect_encoding(raw))


def read_lines(path: Path) -> Iterator[Any]:
    """The complete lines of a JSONL file; a torn last line is left out.

    Raises:
        RobustsegError: a complete line is not JSON.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RobustsegError(
                    f"expected one JSON object a line, got something else in line {number} of {path}; "
                    "try the file as the run wrote it"
                ) from error


def make_folder(path: Path) -> Path:
    """Make a folder and those above it.

    Raises:
        RobustsegError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RobustsegError(
            f"expected to make the folder {path}, got '{error.strerror}'; try another --out"
        ) from error
    return path


def _end_of_last_line(path: Path) -> int | None:
    """Where the last complete line ends, or None where the target is no plain file (a device, a pipe)."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def _cut(path: Path, size: int | None) -> None:
    if size is not None:
        os.truncate(path, size)


def _cannot_write(path: Path, error: OSError) -> RobustsegError:
    return RobustsegError(f"expected to write {path}, got '{error.strerror}'; try another --out, or free some space")
