"""The worst of all that was tried: which records and which images count, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest

import runs
from robustseg.report import page, tables, worst_cases
from robustseg.results import metrics

FOUR = "linf:4/255"


def tried(spec, share, *, linf=4 / 255, seed=1, **changes):
    record = runs.record("zoo:a", spec, share, seed=seed, **changes)
    return replace(record, scores={**record.scores, "linf": [linf] * len(record.ids)})


def pair():
    """A clean record, and two attacks that hurt other images."""
    clean = runs.record("zoo:a", "clean", 0.1)
    one, two = tried(f"fgsm(budget='{FOUR}')", 0.5), tried(f"pgd(budget='{FOUR}')", 0.52, seed=2)
    return clean, one, two


def test_the_worst_case_is_below_every_record_and_above_its_bound():
    clean, one, two = pair()
    (case,) = worst_cases([one, clean, two])
    assert (case.network, case.budget, case.clean, case.tried) == ("zoo:a", FOUR, clean, [one, two])
    alone = [metrics.miou(r.counts) for r in (one, two)]
    assert case.bound < case.miou < min(alone)
    assert metrics.miou(case.counts) == min(alone) == metrics.miou(case.strongest.counts)
    right = np.minimum(one.counts.tp.sum(1), two.counts.tp.sum(1)).sum() / (runs.labels() != 255).sum()
    assert case.pixel_accuracy == pytest.approx(right)


def test_one_record_within_a_budget_is_no_case_and_neither_are_two_without_a_clean_one():
    clean, one, two = pair()
    assert worst_cases([clean, one]) == worst_cases([one, two]) == []
    assert worst_cases([clean, one, one]) == []  # twice the same measurement
    assert worst_cases([clean, one, replace(two, network="zoo:b")]) == []
    assert worst_cases([clean, one, replace(two, size=(6, 8))]) == []


def test_whatever_stays_within_counts_and_what_goes_beyond_does_not():
    clean, one, two = pair()
    weaker = tried("pgd(budget='linf:2/255')", 0.6, linf=2 / 255)
    noise = tried("sign(rms='3/255')", 0.6, linf=3 / 255, seed=3)
    transfer = replace(tried(f"pgd(budget='{FOUR}')", 0.6, seed=4), source="zoo:b")
    far = tried("gaussian(rms='2/255')", 0.99, linf=5 / 255)
    unclipped = replace(tried(f"fgsm(budget='{FOUR}', clip=False)", 0.99), flags={"not_clipped": True})
    (case,) = worst_cases([clean, one, two, weaker, noise, transfer, far, unclipped])
    assert case.tried == [one, two, weaker, noise, transfer]
    assert case.miou < worst_cases([clean, one, two])[0].miou


def test_an_image_that_was_moved_too_far_counts_as_clean():
    clean, one, two = pair()
    least = tried("smallest(steps=3)", 1.0, seed=5)
    sizes = [3 / 255] * 10 + [9 / 255] * 30
    (case,) = worst_cases([clean, one, two, replace(least, scores={"linf": sizes})])
    assert case.strongest is two
    chosen = metrics.worst([clean.counts, one.counts, two.counts]).miou
    assert case.miou < chosen
    (beyond,) = worst_cases([clean, one, two, replace(least, scores={"linf": [9 / 255] * 40})])
    assert (beyond.miou, len(beyond.tried)) == (chosen, 2)


def test_l2_goes_by_what_was_promised():
    clean = runs.record("zoo:a", "clean", 0.1)
    specs = ("pgd(budget='l2:1.5')", "apgd(budget='l2:1.5')", "pgd(budget='l2:1.0')", "pgd(budget='l2:2.0')")
    records = [tried(spec, 0.5, seed=i) for i, spec in enumerate(specs)]
    (case,) = worst_cases([clean, *records])
    assert (case.budget, case.tried) == ("l2:382.5/255", records[:3])


def test_weaker_budgets_come_first_and_are_no_worse():
    """Those of a run whose images lie well within what their specs allow; an attack that broke its promise is out."""
    records = [replace(r, scores={"linf": r.scores["rms"]}) for r in runs.run()]
    found = [case for case in worst_cases(records) if case.network == "zoo:first"]
    assert [case.budget for case in found] == ["linf:2/255", "linf:4/255", "linf:8/255"]
    accuracies = [case.pixel_accuracy for case in found]
    assert accuracies == sorted(set(accuracies), reverse=True)
    assert worst_cases([replace(r, scores={"linf": [0.5] * len(r.ids)}) for r in runs.run()]) == []


def test_the_page_shows_them():
    clean, one, two = pair()
    (group,) = tables.groups([clean, one, two])
    table = tables.within_budgets(group)
    assert table is not None
    (row,) = table.rows
    (case,) = worst_cases([clean, one, two])
    assert [cell.text for cell in row[:5]] == ["a", FOUR, "2", f"{100 * case.miou:.1f}", f"{100 * case.bound:.1f}"]
    assert "The worst of all that was tried" in page([clean, one, two])
    assert "The worst of all that was tried" not in page([clean, one])
