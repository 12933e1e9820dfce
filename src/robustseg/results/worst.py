"""The worst of all that was tried: each network, within each budget, over every record at once.

A robustness number is an upper bound made by what was tried, so trying more only lowers it. Each image takes the record
that hurts most; what counts is whether the image that was measured lies within the budget, not what made it: weaker
budgets, images of other networks, and noise are all tried. An image that a record moved too far counts as not moved, and
records that left [0, 1] do not count.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robustseg.core.budget import Budget
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
        budgets = Counter((r.budget.norm, r.budget.eps) for r in own if r.budget)
        for budget in (Budget(norm, eps) for norm, eps in sorted(budgets)):
            tried = [r for r in own if not r.clean and _within(r, budget).any()]
            if clean and len(tried) > 1 and budgets[budget.norm, budget.eps] > 1:
                found.append(_worst_case(budget, clean, tried))
    return found


def _worst_case(budget: Budget, clean: Record, tried: list[Record]) -> WorstCase:
    counts = [_kept(record.counts, clean.counts, _within(record, budget)) for record in tried]
    alone = int(np.argmin([metrics.miou(c) for c in counts]))
    members = [clean.counts, *counts]
    worst = metrics.worst(members)
    accuracy = metrics.worst_pixel_accuracy(members)
    strongest = tried[alone], counts[alone]
    return WorstCase(clean.network, budget.spec, clean, tried, *strongest, worst.miou, worst.bound, accuracy)


def _within(record: Record, budget: Budget) -> np.ndarray:
    """Which images lie within the budget, bool `[n]`: as measured under L-inf, as promised under L2."""
    own = record.budget
    promised = own is not None and own.norm == budget.norm and own.eps <= budget.eps * (1 + 1e-9)
    if budget.norm == "l2" or "linf" not in record.scores:
        return np.full(len(record.ids), promised)
    return np.asarray(record.scores["linf"], np.float64) <= budget.eps * (1 + 1e-5) + 1e-6


def _kept(counts: Counts, clean: Counts, within: np.ndarray) -> Counts:
    """These counts at the images within, the clean ones at the others; without the confusion."""
    tp, fp, fn = (np.where(within[:, None], getattr(counts, name), getattr(clean, name)) for name in ("tp", "fp", "fn"))
    return Counts(counts.ids, np.zeros_like(counts.confusion), tp, fp, fn)
