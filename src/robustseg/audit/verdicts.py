"""What a control says: ok, suspicious or not checked, the numbers, why, and what to try next."""

from typing import NamedTuple

from robustseg.results.findings import NOT_CHECKED, OK, SUSPICIOUS


class Verdict(NamedTuple):
    """The outcome of one control; the fields are those of `findings.Finding`."""

    status: str
    numbers: dict[str, float]
    text: str
    advice: str = ""


def fine(text: str, **numbers: float) -> Verdict:
    """Looked at, and as it should be."""
    return Verdict(OK, numbers, text)


def doubtful(text: str, advice: str, **numbers: float) -> Verdict:
    """Looked at, and not as it should be."""
    return Verdict(SUSPICIOUS, numbers, text, advice)


def unchecked(why: str, advice: str = "") -> Verdict:
    """Not looked at."""
    return Verdict(NOT_CHECKED, {}, why[:1].upper() + why[1:] + ("" if why.endswith(".") else "."), advice)
