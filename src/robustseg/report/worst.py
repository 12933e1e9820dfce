"""The worst of all that was tried: each network, within each budget, over every record at once.

A robustness number is an upper bound made by what was tried, so trying more only lowers it. Each image takes the record
that hurts most; what counts is whether the image that was measured lies within the budget, not what made it: weaker
budgets, images of other networks, and noise are all tried. An image that a record moved too far counts as not moved, and
records that left [0, 1] do not count.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robustseg.report.tables import Cell, Group, Table, share
from robustseg.report.words import network_names
from robustseg.results import metrics
from robustseg.results.record import Counts, Record
from robustseg.results.summary import conditions


class WorstCase(NamedTuple):
    """The worst that was found for one network within one budget.

    Args:
        network: spec. budget: such as `linf:8/255`.
        clean: the record of the images as they are. tried: all others with an image within the budget.
        strongest: of those the one with the lowest mIoU by itself. counts: what it left within the budget.
        miou: pooled, where each image takes the record that makes it lowest. bound: no choice of records is below.
        pixel_accuracy: where each image takes the record with the fewest right pixels.
    """

    network: str
    budget: str
    clean: Record
    tried: list[Record]
    strongest: Record
    counts: Counts
    miou: float
    bound: float
    pixel_accuracy: float


def worst_cases(records: Sequence[Record]) -> list[WorstCase]:
    """One for each network and budget that two records or more were made with, beside a clean one; weaker budgets first."""
    distinct = {record.key: record for record in records if not record.flags.get("not_clipped")}
    apart: dict[tuple[object, ...], list[Record]] = {}
    for record in distinct.values():
        apart.setdefault(conditions(record), []).append(record)
    found = []
    for own in apart.values():
        clean = next((r for r in own if r.clean), None)
        budgets = [budget for r in own if (budget := _budget(r))]
        for budget in sorted(set(budgets)):
            tried = [r for r in own if not r.clean and _within(r, budget).any()]
            if clean and len(tried) > 1 and budgets.count(budget) > 1:
                found.append(_worst_case(budget, clean, tried))
    return found


class _Budget(NamedTuple):
    norm: str
    eps: float
    text: str


def _budget(record: Record) -> _Budget | None:
    """What a record's spec allows it."""
    given = re.search(r"budget='((linf|l2):([\d.e+-]+)(?:/([\d.]+))?)'", record.perturbation)
    return _Budget(given[2], float(given[3]) / float(given[4] or 1), given[1]) if given else None


def _worst_case(budget: _Budget, clean: Record, tried: list[Record]) -> WorstCase:
    counts = [_kept(record.counts, clean.counts, _within(record, budget)) for record in tried]
    alone = int(np.argmin([metrics.miou(c) for c in counts]))
    members = [clean.counts, *counts]
    worst = metrics.worst(members)
    accuracy = metrics.worst_pixel_accuracy(members)
    strongest = tried[alone], counts[alone]
    return WorstCase(clean.network, budget.text, clean, tried, *strongest, worst.miou, worst.bound, accuracy)


def _within(record: Record, budget: _Budget) -> np.ndarray:
    """Which images lie within the budget, bool `[n]`: as measured under L-inf, as promised under L2."""
    own = _budget(record)
    promised = own is not None and own.norm == budget.norm and own.eps <= budget.eps * (1 + 1e-9)
    if budget.norm == "l2" or "linf" not in record.scores:
        return np.full(len(record.ids), promised)
    return np.asarray(record.scores["linf"], np.float64) <= budget.eps * (1 + 1e-5) + 1e-6


def _kept(counts: Counts, clean: Counts, within: np.ndarray) -> Counts:
    """These counts at the images within, the clean ones at the others; without the confusion."""
    tp, fp, fn = (np.where(within[:, None], getattr(counts, name), getattr(clean, name)) for name in ("tp", "fp", "fn"))
    return Counts(counts.ids, np.zeros_like(counts.confusion), tp, fp, fn)


def table(group: Group) -> Table | None:
    """One row a network and budget; None where no budget was tried twice."""
    names = network_names(group.records)
    head = ["network", "within", "records tried", "worst mIoU %", "none below %", "worst Q %", "worst pixels right %"]
    rows = []
    for case in worst_cases(group.records):
        clean = metrics.miou(case.clean.counts)
        rows.append(
            [
                Cell(names[case.network], title=case.network),
                Cell(case.budget, look="spec"),
                Cell(str(len(case.tried)), len(case.tried), "\n".join(r.perturbation for r in case.tried)),
                share(case.miou),
                share(case.bound, look="quiet"),
                share(case.miou / clean if clean > 0 else float("nan"), look="bar"),
                share(case.pixel_accuracy),
                Cell(case.strongest.perturbation, look="spec"),
                share(metrics.miou(case.counts)),
            ]
        )
    return Table([*head, "strongest record", "its mIoU %"], rows, 2) if rows else None
