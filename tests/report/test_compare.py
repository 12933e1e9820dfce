"""Compare: two runs image by image, with a verdict that CI can rely on."""

import math
from dataclasses import replace

import numpy as np
import pytest

import runs
from robustseg.core.errors import LabelSpaceMismatch, RobustsegError
from robustseg.core.labels import LabelSpace
from robustseg.report import compare
from robustseg.results import metrics
from robustseg.results.record import Counts, Record

PGD = "pgd(budget='linf:8/255', steps=20)"


def shuffled(record: Record) -> Record:
    order = np.random.default_rng(0).permutation(len(record.ids))
    c = record.counts
    ids = tuple(c.ids[i] for i in order)
    return replace(record, counts=Counts(ids, c.confusion, c.tp[order], c.fp[order], c.fn[order]))


def test_a_run_against_itself_differs_by_nothing() -> None:
    records = runs.run()
    found = compare(records, records)
    assert [c.perturbation for c in found] == [r.perturbation for r in records]
    assert all(c.difference == (0.0, 0.0, 0.0) and not c.worse and not c.better for c in found)
    assert found[0].verdict == "no clear difference"


def test_a_loss_is_significant_and_a_gain_is_not_a_loss() -> None:
    good, bad = runs.record("zoo:a", PGD, 0.3), runs.record("zoo:b", PGD, 0.5)
    (loss,), (gain,) = compare([good], [bad]), compare([bad], [good])
    assert loss.worse
    assert loss.verdict == "worse"
    assert gain.better
    assert not gain.worse
    assert loss.difference.value == pytest.approx(metrics.miou(bad.counts) - metrics.miou(good.counts))
    assert (loss.network_a, loss.network_b, loss.images) == ("zoo:a", "zoo:b", 40)


@pytest.mark.parametrize("n", [40, 120])
def test_chance_alone_is_seldom_a_loss(n: int) -> None:
    """Two seeds of one run differ by chance: few pairs may be called worse (2.5 % expected)."""
    drawn = [[runs.record("zoo:a", PGD, 0.3, seed=s + t, n=n) for t in (0, 100)] for s in range(30)]
    assert sum(compare([a], [b])[0].worse for a, b in drawn) <= 3


def test_many_rows_raise_no_more_alarms_than_one() -> None:
    """Over 6 pairs of runs of 20 rows, 120 rows that differ by chance, hardly a run may be called worse anywhere."""
    specs = [f"gaussian(rms='{i}/255')" for i in range(20)]
    alarms = 0
    for s in range(6):
        a, b = ([runs.record("zoo:a", x, 0.3, seed=100 * s + 20 * t + i) for i, x in enumerate(specs)] for t in (0, 1))
        alarms += any(row.worse for row in compare(a, b))
    assert alarms == 0  # without the correction for many rows one of these six would be


def test_the_intervals_of_more_rows_are_wider_and_a_clear_loss_still_shows() -> None:
    one = compare([runs.record("zoo:a", PGD, 0.3)], [runs.record("zoo:b", PGD, 0.5)])[0]
    more = compare(
        *([runs.record(n, f"pgd(steps={i})", s) for i in range(30)] for n, s in (("zoo:a", 0.3), ("zoo:b", 0.5)))
    )
    assert all(row.worse for row in more)
    assert more[0].difference.high - more[0].difference.low > 2 * (one.difference.high - one.difference.low)


def test_the_difference_is_paired() -> None:
    """A small loss on every image shows, though single intervals overlap widely."""
    rng = np.random.default_rng(0)
    right = np.stack([rng.integers(200, 900, 60)] * 2, 1)
    ids = tuple(f"s_{i:03d}" for i in range(60))

    def of(tp: np.ndarray) -> Record:
        wrong = 1000 - tp
        confusion = np.array([[tp[:, 0].sum(), wrong[:, 0].sum(), 0], [wrong[:, 1].sum(), tp[:, 1].sum(), 0]])
        space = LabelSpace(("a", "b"), ((0, 0, 0), (1, 1, 1)))
        return Record("n", "n", "d", "clean", space, Counts(ids, confusion, tp, wrong[:, ::-1], wrong))

    (found,) = compare([of(right)], [of(right - 15)])
    single = metrics.interval(0.0, metrics.image_miou(metrics.resample(of(right).counts)))
    assert found.worse
    assert single.high - single.low > 3 * abs(found.difference.value)


def test_images_pair_by_id_in_any_order() -> None:
    one = runs.record("zoo:a", PGD, 0.3)
    (found,) = compare([one], [shuffled(one)])
    assert found.difference == (0.0, 0.0, 0.0)


def test_other_images_are_refused() -> None:
    with pytest.raises(RobustsegError, match=r"40 and 20 under .* 20 only in the first .*such as '.*'\); try"):
        compare([runs.record("zoo:a", PGD, 0.3)], [runs.record("zoo:a", PGD, 0.3, n=20)])


def test_a_missing_measurement_is_refused_but_more_is_welcome() -> None:
    one, other = runs.record("zoo:a", PGD, 0.3), runs.record("zoo:a", "clean", 0.1)
    with pytest.raises(RobustsegError, match=r"expected 'pgd.*got it in the first only; try"):
        compare([one], [other])
    assert len(compare([one], [other, one])) == 1


def test_other_data_or_size_is_refused() -> None:
    one = runs.record("zoo:a", PGD, 0.3)
    with pytest.raises(RobustsegError, match=r"one data set, got camvid.* at 12x16 and other"):
        compare([one], [replace(one, data="other", size=None)])


def test_several_networks_pair_by_name() -> None:
    a, b = runs.run(("zoo:a", "zoo:b")), runs.run(("zoo:b", "zoo:a"))
    assert all(c.network_a == c.network_b for c in compare(a, b))
    with pytest.raises(RobustsegError, match=r"expected 'zoo:a' in both runs, got zoo:b, zoo:c"):
        compare(a, runs.run(("zoo:b", "zoo:c")))


def test_transferred_attacks_pair_with_transferred_ones() -> None:
    own, moved = runs.record("zoo:a", PGD, 0.5), runs.record("zoo:a", PGD, 0.3, source="zoo:s")
    found = compare([own, moved], [moved, own])
    assert [c.source for c in found] == ["itself", "zoo:s"]
    assert all(c.difference.value == 0 for c in found)


def test_other_classes_are_refused() -> None:
    one = runs.record("zoo:a", PGD, 0.3)
    space = LabelSpace(("road", "car", "person", "sky"), runs.SPACE.palette)
    with pytest.raises(LabelSpaceMismatch, match="'pedestrian' against 'person'"):
        compare([one], [replace(one, label_space=space)])


def test_few_images_leave_it_undecided() -> None:
    (found,) = compare([runs.record("zoo:a", PGD, 0.1, n=20)], [runs.record("zoo:a", PGD, 0.9, n=20)])
    assert math.isnan(found.difference.low)
    assert not found.worse
    assert found.undecided
    assert found.verdict.startswith("undecided")


def test_the_latest_record_of_the_same_images_is_the_partner() -> None:
    before = runs.record("zoo:a", "clean", 0.2, content="ab")
    stale, latest = (
        runs.record("zoo:a", "clean", share, content="ab", code=code) for share, code in ((0.2, "x"), (0.6, "y"))
    )
    (found,) = compare([before], [stale, latest])
    assert found.after == metrics.miou(latest.counts) < found.before
    with pytest.raises(RobustsegError, match="expected both runs over one data set"):
        compare([before], [runs.record("zoo:a", "clean", 0.2, content="cd")])
