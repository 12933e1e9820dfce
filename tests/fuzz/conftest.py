"""Counts what the fuzz tests did, and says it at the end of a run."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def tally(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Counter[str]]:
    """Counts `accepted` and `refused`; told at the end of the run with the time it took."""
    counted: Counter[str] = Counter()
    began = time.monotonic()
    yield counted
    kind = request.node.name.removeprefix("test_")
    record_property("fuzz", (kind, counted["accepted"], counted["refused"], time.monotonic() - began))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line a kind: examples, accepted, refused, seconds."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    rows = {value[0]: value for r in reports for name, value in getattr(r, "user_properties", ()) if name == "fuzz"}
    if not rows:
        return
    seed = config.getoption("--hypothesis-seed", None)
    terminalreporter.section(f"fuzz, seed {seed}" if seed else "fuzz, the same examples every time")
    terminalreporter.line(f"{'kind':12}{'examples':>10}{'accepted':>10}{'refused':>10}{'seconds':>10}")
    for kind, accepted, refused, seconds in sorted(rows.values()):
        terminalreporter.line(f"{kind:12}{accepted + refused:10}{accepted:10}{refused:10}{seconds:10.1f}")
