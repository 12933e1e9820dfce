"""The errors that a user can act on: each text says what was expected, what came, and what to try."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST, WORD = 900, 300
"""Characters of an error message, and of what stands in it without a blank; longer ones are cut in the middle."""
TREE = "try this tree:\n"
"""What may stand before lines of their own in an error: the folders of a data set."""


def readable(text: str, most: int = LONGEST) -> str:
    """Text on one line that any terminal can show: control characters spelled out, cut in the middle to `most` characters."""
    spelled = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return _cut(re.sub(rf"\S{{{WORD},}}", lambda found: _cut(found[0], WORD // 2), spelled), most)


def _cut(text: str, most: int) -> str:
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


class RobustsegError(ValueError):
    """Something the user can mend. The text says what was expected, what came, and what to try."""

    def __init__(self, text: str = ""):
        told, mark, tree = str(text).partition(TREE)
        super().__init__(readable(told) + mark + tree)


class ShapeError(RobustsegError):
    """Tensors whose shapes do not fit each other."""


class LabelSpaceMismatch(RobustsegError):
    """A network and a data set that do not speak of the same classes."""


class DatasetNotFound(RobustsegError):
    """A data set that is not there or not complete; the text shows the expected tree."""


class SpecError(RobustsegError):
    """A spec that cannot be read or names nothing known; the text shows near matches."""


class MissingExtra(RobustsegError):
    """An optional package that is not installed; the text gives the install line."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"expected the package '{package}', got none; try: pip install 'robustseg[{extra}]'")


def message_of(error: BaseException, most: int = 300) -> str:
    """An error of somebody else's code on one line: its class and its message.

    Of a message that holds a traceback, as those of TorchScript and torch.compile do, only the last line is kept.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines and "Traceback" in str(error) else " ".join(lines)
    return readable(f"{type(error).__name__}: {said}" if said else type(error).__name__, most)


@contextmanager
def users_code(expected: str, fix: str, kind: type[RobustsegError] = RobustsegError) -> Iterator[None]:
    """Within runs code that is not ours; whatever it raises becomes one sentence that holds its own message.

    Args:
        expected: what the code should have given. fix: what to try. kind: of the error.

    Raises:
        RobustsegError: or its kind: the code raised, or ended the process by `sys.exit`.
    """
    try:
        yield
    except RobustsegError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error):
            fix = "a smaller --size or --batch-size"
        raise kind(f"expected {expected}, got {message_of(error)}; try {fix}") from error
