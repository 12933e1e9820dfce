"""Summary: the keys and values that scripts rely on."""

import json
import math
from dataclasses import replace

import pytest

import runs
from robustseg.core.errors import RobustsegError
from robustseg.results import metrics
from robustseg.results.summary import clean_of, summary, worst_images

KEYS = [
    "network",
    "source",
    "data",
    "perturbation",
    "images",
    "miou",
    "miou_per_image",
    "pixel_accuracy",
    "q",
    "rms",
    "linf",
    "flags",
    "seconds",
    "forwards",
    "backwards",
]


def test_summary_has_exactly_the_promised_keys_and_is_plain_json() -> None:
    found = summary(runs.run())
    assert all(list(row)[: len(KEYS)] == KEYS for row in found)
    assert all({"agreement", "psnr", "linf_median", "interval", "classes"} <= set(row) for row in found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_q_is_the_ratio_to_the_clean_record_of_the_same_network() -> None:
    records = runs.run()
    rows = summary(records)
    assert rows[0]["q"] == 1.0
    half = len(records) // 2
    for first, row in ((0, rows[half - 1]), (half, rows[-1])):
        assert row["q"] == pytest.approx(row["miou"] / rows[first]["miou"])


def test_what_is_absent_is_none() -> None:
    alone = replace(runs.record("zoo:a", "gaussian(rms='2/255')", 0.3), scores={"rms": [math.nan] * 40})
    (row,) = summary([alone])
    assert row["q"] is None
    assert row["rms"] is None
    assert row["linf"] is None


def test_rms_is_the_mean_and_linf_the_largest() -> None:
    changed = replace(
        runs.record("a", "b", 0.1, n=4), scores={"rms": [1.0, 3.0, math.nan, 2.0], "linf": [1.0, 4.0, 2.0, 0]}
    )
    (row,) = summary([changed])
    assert (row["rms"], row["linf"], row["linf_median"]) == (2.0, 4.0, 1.5)


def test_only_raised_flags_are_named() -> None:
    flags = {"random_output": True, "probabilities": False, "zero_gradients": 0.0, "masked": None}
    (row,) = summary([replace(runs.record("a", "b", 0.1), flags=flags)])
    assert row["flags"] == ["random_output"]


def test_a_clean_record_under_other_conditions_is_no_reference() -> None:
    clean, attacked = runs.record("zoo:a", "clean", 0.1), runs.record("zoo:a", "b", 0.3)
    assert clean_of(attacked, [clean]) is clean
    for changes in ({"network": "zoo:b"}, {"data": "other"}, {"size": (6, 8)}, {"precision": "bfloat16"}):
        assert clean_of(attacked, [replace(clean, **changes)]) is None
    assert clean_of(attacked, [runs.record("zoo:a", "clean", 0.1, n=20)]) is None


def test_worst_images_come_by_drop() -> None:
    clean, attacked = runs.record("zoo:a", "clean", 0.1), runs.record("zoo:a", "b", 0.5)
    drops = worst_images(attacked, clean, 5)
    lost = metrics.image_miou(clean.counts) - metrics.image_miou(attacked.counts)
    assert [d.before - d.after for d in drops] == pytest.approx(sorted(lost, reverse=True)[:5])
    assert all(attacked.ids[d.position] == d.id for d in drops)
    with pytest.raises(RobustsegError, match="same images"):
        worst_images(attacked, runs.record("zoo:a", "clean", 0.1, n=8))


def test_images_that_changed_are_no_baseline() -> None:
    """A clean record of other masks, or of other code, is not what a perturbed one is measured against."""
    clean, attacked = runs.run(("zoo:first",))[:2]
    same = replace(attacked, content="ab"), replace(clean, content="ab")
    assert clean_of(same[0], [clean, same[1]]) is same[1]
    assert clean_of(same[0], [clean]) is None
    assert clean_of(replace(attacked, code="cd"), [clean]) is None
