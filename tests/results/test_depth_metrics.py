"""Figures of depth and motion against their closed forms, and the baselines."""

import math

import numpy as np
import pytest

from robustseg.core.errors import RobustsegError, ShapeError
from robustseg.results.depth_metrics import (
    depth_figures,
    depth_sums,
    forward_motion,
    positions,
    row_medians,
    snippet_errors,
)


def figures(truth, prediction, **options):
    truth, prediction = np.asarray(truth, float), np.asarray(prediction, float)
    return depth_figures(depth_sums(truth, prediction, [f"a_{i}" for i in range(len(truth))], **options))


def test_closed_forms_of_a_prediction_a_tenth_too_far():
    truth = np.array([[[2.0, 4.0], [10.0, 20.0]]])
    found = figures(truth, 1.1 * truth, median_scaling=False)
    assert found["abs_rel"] == pytest.approx(0.1)
    assert found["sq_rel"] == pytest.approx(0.01 * 9)  # 0.01 times the mean depth
    assert found["rmse"] == pytest.approx(0.1 * math.sqrt((4 + 16 + 100 + 400) / 4))
    assert found["rmse_log"] == pytest.approx(math.log(1.1))
    assert (found["delta_1"], found["delta_2"], found["delta_3"]) == (1, 1, 1)


def test_thresholds_count_both_ways():
    truth = np.full((1, 1, 6), 10.0)
    prediction = 10.0 * np.array([[[1.2, 1 / 1.2, 1.3, 1 / 1.3, 1.6, 1 / 2.0]]])
    found = figures(truth, prediction, median_scaling=False)
    assert (found["delta_1"], found["delta_2"], found["delta_3"]) == pytest.approx((2 / 6, 4 / 6, 5 / 6))


def test_median_scaling_forgives_one_factor_an_image():
    truth = 1 + 9 * np.random.default_rng(0).random((2, 5, 6))
    factors = np.array([0.2, 3.0]).reshape(2, 1, 1)
    assert figures(truth, factors * truth)["abs_rel"] == pytest.approx(0, abs=1e-12)
    assert figures(truth, factors * truth, median_scaling=False)["abs_rel"] == pytest.approx((0.8 + 2) / 2)
    scales = depth_sums(truth, factors * truth, ["a", "b"]).scales
    assert scales == pytest.approx([5, 1 / 3])


def test_unknown_and_far_truth_does_not_count():
    truth = np.array([[[0.0, 5.0, 90.0, 10.0]]])
    prediction = np.array([[[np.nan, 5.0, 1.0, 300.0]]])
    sums = depth_sums(truth, prediction, ["a"], median_scaling=False)
    assert sums.pixels.tolist() == [2]
    assert depth_figures(sums)["abs_rel"] == pytest.approx((80 - 10) / 10 / 2)  # capped at 80
    assert figures(truth, prediction, median_scaling=False, farthest=8)["abs_rel"] == 0


def test_images_add_and_count_alike_however_many_pixels_they_have():
    truth = np.full((2, 2, 2), 4.0)
    truth[0, 0] = 0
    prediction = np.stack([np.full((2, 2), 5.0), np.full((2, 2), 4.4)])
    whole = depth_sums(truth, prediction, ["a", "b"], median_scaling=False)
    parts = [depth_sums(truth[i : i + 1], prediction[i : i + 1], [n], median_scaling=False) for i, n in enumerate("ab")]
    added = parts[0] + parts[1]
    assert added.ids == whole.ids
    assert (added.sums == whole.sums).all()
    assert depth_figures(added)["abs_rel"] == pytest.approx((0.25 + 0.1) / 2)
    nothing = depth_sums(np.zeros((1, 2, 2)), prediction[:1], ["c"])
    assert math.isnan(nothing.scales[0])
    assert depth_figures(added + nothing) == depth_figures(added)
    assert all(math.isnan(value) for value in depth_figures(nothing).values())


def test_predictions_that_are_no_depth_are_told():
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(RobustsegError, match="expected depths above 0 for 'a'"):
            depth_sums(np.ones((1, 1, 2)), np.array([[[1.0, wrong]]]), ["a"])
    with pytest.raises(ShapeError, match="expected two depth maps"):
        depth_sums(np.ones((1, 2, 2)), np.ones((1, 2, 3)), ["a"])


def test_rows_take_their_median_and_empty_rows_what_lies_between():
    depths = np.zeros((2, 5, 3))
    depths[:, 1] = [[1, 2, 9], [3, np.nan, 0]]
    depths[0, 3] = [6.5, 0, 0]
    assert row_medians(depths).tolist() == [2.5, 2.5, 4.5, 6.5, 6.5]
    with pytest.raises(RobustsegError, match="expected known depth"):
        row_medians(np.zeros((1, 2, 2)))


def turning(steps: int, angle: float, forward: float = 1.0) -> np.ndarray:
    """Each step forward and then to the right by an angle: camera to the next one."""
    c, s = math.cos(angle), math.sin(angle)
    there = np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, forward], [0, 0, 0, 1]])
    return np.tile(np.linalg.inv(there), (steps, 1, 1))


def test_positions_follow_the_camera():
    assert np.allclose(positions(forward_motion(3)), [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]])
    square = positions(turning(4, math.pi / 2))
    assert np.allclose(square, [[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0]], atol=1e-12)


def test_snippets_forgive_one_factor_each_and_nothing_else():
    truth = turning(9, 0.1)
    assert snippet_errors(truth, turning(9, 0.1, forward=0.03)) == pytest.approx(np.zeros(6), abs=1e-12)
    assert (snippet_errors(truth, turning(9, 0.0)) > 0.01).all()
    assert len(snippet_errors(truth, truth, frames=3)) == 8


def test_closed_form_of_a_right_angle():
    """Truth goes ahead, the guess to the right: no factor helps, so all of the way is the error."""
    truth = forward_motion(4)
    right = np.tile(np.eye(4), (4, 1, 1))
    right[:, 0, 3] = -1.0
    expected = math.sqrt(1 + 4 + 9 + 16) / 5
    assert snippet_errors(truth, right) == pytest.approx([expected])
    assert snippet_errors(truth, np.tile(np.eye(4), (4, 1, 1))) == pytest.approx([expected])  # one that does not move
    # a guess that sees half of a diagonal way: the best factor is 1, the rest stays
    diagonal = truth + right - np.eye(4)
    assert snippet_errors(diagonal, truth) == pytest.approx([expected])


def test_too_short_runs_are_told():
    with pytest.raises(ShapeError, match="expected two runs of at least 4 poses"):
        snippet_errors(forward_motion(3), forward_motion(3))
    with pytest.raises(ShapeError, match="expected two runs"):
        snippet_errors(forward_motion(5), forward_motion(4))
