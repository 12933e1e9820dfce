"""What the fuzz tests share: how many examples, what counts as an answer, damage to bytes, and the corpus.

Every test holds one property: an input is accepted and read as an independent reader reads it, or it is refused by a
`RobustsegError` in one sentence. Another exception, a hang or another number fails.
"""

import contextlib
import faulthandler
import os
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from robustseg.core.errors import RobustsegError

CORPUS = Path(__file__).parent / "corpus"
"""Inputs that failed once, a folder a kind; each is a test of its own."""
FAILED = Path(__file__).parent / "failed"
"""The last input of each kind that failed, which is the smallest one that was found; git does not see it."""
MANY = int(os.environ.get("ROBUSTSEG_FUZZ", "0"))
"""How many examples of each kind `make fuzz` asks for; 0 is a plain test run: few examples, the same ones every time."""


class Hang(BaseException):
    """No answer within the deadline; no `except Exception` catches it."""


class Refusal(str):
    """The one sentence with which an input was refused."""


def examples(few: int) -> settings:
    """The settings of one kind: `few` examples in a plain test run, else what `make fuzz` asks for."""
    return settings(
        max_examples=MANY or few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def corpus(kind: str) -> pytest.MarkDecorator:
    """Parametrises a test over the committed inputs of a kind, as `path`."""
    paths = sorted((CORPUS / kind).iterdir())
    return pytest.mark.parametrize("path", paths, ids=[path.name for path in paths])


def answer(call: Callable[[], Any], *, seconds: int = 10) -> Any:
    """What a call gives, or its `Refusal`; another exception passes through, and a deadline raises `Hang`."""
    with _deadline(seconds), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except RobustsegError as error:
            return _sentence(str(error))


@contextlib.contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise Hang(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(6 * seconds, exit=True)  # where C code holds the signal back
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def _sentence(text: str) -> Refusal:
    """A refusal, which must be one sentence of moderate length; a tree of folders may follow it."""
    told = text.partition("try this tree:\n")[0]
    assert len(text) < 1000, f"expected a sentence, got {len(text)} characters: {text[:200]}…"
    assert "\n" not in told, f"expected one line, got {told!r}"
    assert re.search(r"expected .*(, got |; )", told), f"expected 'expected …, got …', got {told!r}"
    return Refusal(text)


@contextlib.contextmanager
def kept(kind: str, data: bytes | str, suffix: str) -> Iterator[None]:
    """Within: an input that fails is written to `failed/KIND.SUFFIX`, from where it can move into the corpus."""
    try:
        yield
    except BaseException:
        FAILED.mkdir(exist_ok=True)
        (FAILED / f"{kind}{suffix}").write_bytes(
            data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        )
        raise


def tell(tally: Counter[str], accepted: bool) -> None:
    """Count one example."""
    tally["accepted" if accepted else "refused"] += 1


Edits = list[tuple[str, int, int]]
edits: st.SearchStrategy[Edits] = st.lists(
    st.tuples(
        st.sampled_from(["set", "flip", "cut", "drop", "insert", "repeat"]), st.integers(0, 65535), st.integers(0, 255)
    ),
    min_size=1,
    max_size=4,
)
"""Damage to bytes, for `damaged`: (what is done, where, a value)."""


def damaged(data: bytes, done: Edits) -> bytes:
    """Bytes that were set, flipped, cut off, dropped, inserted or repeated."""
    raw = bytearray(data)
    for how, where, value in done:
        at = where % max(1, len(raw))
        if how == "cut":
            del raw[at:]
        elif how == "drop":
            del raw[at : at + value]
        elif how == "insert":
            raw[at:at] = bytes([value])
        elif how == "repeat":
            raw[at:at] = raw[at : at + value]
        elif raw:
            raw[at] = value if how == "set" else raw[at] ^ (1 << value % 8)
    return bytes(raw)
