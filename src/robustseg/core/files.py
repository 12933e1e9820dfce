"""Files that survive a crash and tell when they were damaged: sealed lines, whole files or nothing, one writer a folder."""

import errno
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from robustseg.core.errors import RobustsegError

SEAL = '"digest":"'
BOM = b"\xef\xbb\xbf"

log = logging.getLogger(__name__)

_held: ContextVar[frozenset[tuple[int, int]]] = ContextVar("_held", default=frozenset())
"""The folders that the running code writes alone, by device and inode; other threads hold their own."""
_LOCKLESS = {errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What `flock` answers on file systems without such a lock."""


def json_line(data: Any) -> str:
    """One line of JSON, NaN and infinities as null; an object ends with a digest of the text before it."""
    text = json.dumps(_null_for_nan(data), allow_nan=False, separators=(",", ":"))
    if isinstance(data, dict):
        head = text[:-1] + ("," if data else "")
        text = f'{head}{SEAL}{_digest(head)}"}}'
    return text + "\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    """Within: no other process and no other thread writes a run into this folder. A process that dies gives it up.

    The folder is made, and removed again if it is new and stays empty. What runs within may ask for the same folder again.
    On a file system without locks a warning is logged.

    Raises:
        RobustsegError: another one writes there, or the folder cannot be made.
    """
    new = not folder.exists()
    about = os.stat(make_folder(folder))
    place = about.st_dev, about.st_ino
    descriptor = None if place in _held.get() else _locked(folder)
    before = _held.set(_held.get() | {place})
    try:
        yield
    finally:
        _held.reset(before)
        if new and not any(folder.iterdir()):
            folder.rmdir()
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder until it is closed; None where there is no such lock."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs in one folder are the user's to avoid
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RobustsegError(
            f"expected to be alone in {folder}, got another run that writes there; try another --out, or wait for it"
        ) from error
    except OSError as error:
        if error.errno not in _LOCKLESS:
            os.close(descriptor)
            raise
        log.warning("%s cannot be locked (%s): do not start a second run there", folder, error.strerror)
    return descriptor


def append_line(path: Path, data: Any) -> None:
    """Append one line and force it to disk; a line that a crash tore off before is cut away first.

    Raises:
        RobustsegError: the disk is full or the file cannot be written; what was there before stays.
    """
    line = json_line(data).encode()
    try:
        with open(path, "ab") as file:
            start, tail = _tail(path)
            if tail and _object(tail) is not None:  # an editor took the last line break away
                line = b"\n" + line
            elif start is not None:
                file.truncate(start)
            before = path.stat().st_size if start is not None else None
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                _cut(path, before)
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
            file.write(text.encode(errors="backslashreplace") if isinstance(text, str) else text)
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


def read_lines(
    path: Path,
    parse: Callable[[dict[str, Any]], Any] = lambda data: data,
    *,
    unsealed: Callable[[dict[str, Any]], bool] = lambda data: False,
    torn: bool = False,
) -> Iterator[Any]:
    """The lines of a JSONL file that `append_line` wrote, each checked against its digest and read.

    Args:
        path: of the file. Blank lines are skipped.
        parse: what a line means, given the object without its digest; it raises RobustsegError where that is not clear.
        unsealed: whether a line may lack the digest, as those of earlier versions do.
        torn: leave out a last line that a crash tore off, as whoever goes on writing the file may.

    Raises:
        RobustsegError: a line is torn, changed since it was written, or not what `parse` expects.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(BOM if number == 1 else b"").strip()
            if not text:
                continue
            data = _object(text)
            if data is None and not line.endswith(b"\n") and torn:
                return
            try:
                if data is None:
                    raise RobustsegError("expected a JSON object, got something else or half of one")
                if not _sealed(text) and ("digest" in data or not unsealed(data)):
                    raise RobustsegError("expected the digest of its content, got none or that of another content")
                data.pop("digest", None)
                value = parse(data)
            except RobustsegError as error:
                raise _damaged(f"line {number} of {path}", error, "remove the line and repeat what wrote it") from error
            yield value


def read_json(path: Path, parse: Callable[[dict[str, Any]], Any] = lambda data: data) -> Any:
    """The JSON object that a whole file holds.

    Args:
        path: of the file. parse: what it means; it raises RobustsegError where that is not clear.

    Raises:
        RobustsegError: the file holds no JSON object, or not what `parse` expects.
    """
    data = _object(path.read_bytes().removeprefix(BOM))
    try:
        if data is None:
            raise RobustsegError("expected a JSON object, got something else or half of one")
        return parse(data)
    except RobustsegError as error:
        raise _damaged(str(path), error, "repeat what wrote it") from error


def _damaged(place: str, error: RobustsegError, hint: str) -> RobustsegError:
    """The sentence that says where a file is not as it was written, and how."""
    reason = str(error).partition("; try")[0]
    return RobustsegError(
        f"expected {place} as it was written, got a change or damage ({reason}); try an intact copy, or {hint}"
    )


def _object(text: bytes) -> dict[str, Any] | None:
    """The JSON object that a text is, None where it is none: strictly UTF-8, finite numbers, each key once."""
    try:
        data = json.loads(text.decode(), object_pairs_hook=_each_once, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands twice")
    return data


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("too large a number")
    return value


def _sealed(text: bytes) -> bool:
    head, seal, digest = text.decode().rpartition(SEAL)
    return bool(seal) and digest == f'{_digest(head)}"}}'


def on_disk(text: str) -> Path | None:
    """The file or folder that a text names; None where there is none, or the text can be no path, as a long spec."""
    try:
        path = Path(text)
        return path if path.exists() else None
    except (OSError, ValueError):
        return None


def file_name(text: str, suffix: str = "") -> str:
    """A name for a file that is `text` where every file system takes that, else readable and with a digest of it.

    Different texts have different names, also where a file system does not tell small letters from capitals, cuts trailing
    dots, composes accents, or knows devices called `con`.
    """
    plain = re.fullmatch(r"[a-z0-9_][a-z0-9._-]{0,119}", text) and text[-1] != "."
    digested = re.search(r"-[0-9a-f]{16}$", text)  # looks like the name of another text
    if not plain or digested or re.match(r"(con|prn|aux|nul|com\d|lpt\d)($|\.)", text):
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:80]
        text = f"{readable or 'file'}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]}"
    return text + suffix


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


def _tail(path: Path) -> tuple[int | None, bytes]:
    """Where the last complete line ends and what stands after it; None where the target is no plain file (a device, a pipe)."""
    if not path.is_file():
        return None, b""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        found = -1
        while end > 0 and found < 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            end = start
        after = end + found + 1
        file.seek(after)
        return after, file.read().strip()


def _cut(path: Path, size: int | None) -> None:
    if size is not None:
        os.truncate(path, size)


def _cannot_write(path: Path, error: OSError) -> RobustsegError:
    return RobustsegError(f"expected to write {path}, got '{error.strerror}'; try another --out, or free some space")
