"""Scores against loops over pixels, tiles against slices, and what each threshold says."""

import math

import pytest
import torch

from robustseg.core.errors import SpecError
from robustseg.monitor.detector import DISTANCES, blamed, bounds, difference, pixel_variation, tiled, untiled

generator = torch.Generator().manual_seed(3)
LOGITS = [3 * torch.randn((2, 4, 5, 7), generator=generator, dtype=torch.float64) for _ in range(3)]


def _kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


LOOPS = {
    "hamming": lambda p, q: float(p.index(max(p)) != q.index(max(q))),
    "kl": lambda p, q: (_kl(p, q) + _kl(q, p)) / 2,
    "cosine": lambda p, q: 1 - sum(a * b for a, b in zip(p, q, strict=True)) / math.hypot(*p) / math.hypot(*q),
    "variation": lambda p, q: sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2,
}


@pytest.mark.parametrize("name", LOOPS)
def test_distances_are_what_a_loop_gives(name):
    function = {**DISTANCES, "variation": pixel_variation}[name]
    found = function(LOGITS[0], LOGITS[1])
    posteriors = [logits.softmax(1) for logits in LOGITS]
    for i, y, x in ((0, 0, 0), (1, 4, 6), (0, 2, 3), (1, 1, 5)):
        p, q = (one[i, :, y, x].tolist() for one in posteriors[:2])
        assert float(found[i, y, x]) == pytest.approx(LOOPS[name](p, q), abs=1e-12)
    assert torch.equal(found, function(LOGITS[1], LOGITS[0])) or name != "hamming"
    assert float(function(LOGITS[0], LOGITS[0]).abs().max()) < 1e-12


def test_variation_is_hamming_where_the_networks_are_sure():
    sure = [1e4 * logits for logits in LOGITS]
    torch.testing.assert_close(
        difference(*sure, distance="hamming", soft=True), difference(*sure, distance="hamming"), rtol=0, atol=1e-9
    )
    assert (difference(*LOGITS, distance="hamming", soft=True) != difference(*LOGITS, distance="hamming")).any()


def test_d_is_the_share_of_pixels_that_leave_the_teacher_less_that_of_the_student():
    teacher, student, adaptive = (logits.argmax(1) for logits in LOGITS)
    d = tiled(difference(*LOGITS, distance="hamming"), None)
    assert d.shape == (2, 1, 1)
    for i in range(2):
        left = sum(int(t != a) for t, a in zip(teacher[i].flatten(), adaptive[i].flatten(), strict=True))
        right = sum(int(s != a) for s, a in zip(student[i].flatten(), adaptive[i].flatten(), strict=True))
        assert float(d[i]) == pytest.approx((left - right) / 35, abs=1e-15)


@pytest.mark.parametrize("tile", [1, 2, 3, 5, 7, 9])
def test_a_tile_is_the_mean_of_its_slice(tile):
    values = LOGITS[0][:, 0]
    tiles = tiled(values, tile)
    rows, columns = -(-5 // tile), -(-7 // tile)
    assert tiles.shape == (2, rows, columns)
    for r in range(rows):
        for c in range(columns):
            part = values[:, r * tile : (r + 1) * tile, c * tile : (c + 1) * tile]
            torch.testing.assert_close(tiles[:, r, c], part.mean((1, 2)))
    spread = untiled(tiles, tile, (5, 7))
    assert spread.shape == values.shape
    assert all(float(spread[1, y, x]) == float(tiles[1, y // tile, x // tile]) for y in range(5) for x in range(7))


def test_who_is_blamed():
    tiles = torch.tensor([[[-0.3]], [[0.0]], [[0.1]], [[0.2]], [[math.nan]]], dtype=torch.float64)
    assert blamed(tiles, 0.1) == ["student", "student", "teacher", "teacher", "unknown"]
    assert blamed(tiles, (-0.3, 0.2)) == ["student", "none", "none", "teacher", "unknown"]
    assert blamed(tiles, (None, 0.2)) == ["none", "none", "none", "teacher", "unknown"]
    assert blamed(tiles, (-0.1, None)) == ["student", "none", "none", "none", "unknown"]


def test_any_tile_speaks_and_the_teacher_first():
    tiles = torch.tensor([[[0.0, 0.3], [-0.9, 0.0]], [[0.0, 0.0], [-0.9, 0.1]]])
    assert blamed(tiles, (-0.2, 0.2)) == ["teacher", "student"]


def test_a_threshold_between_two_float32_numbers_is_kept():
    score = torch.tensor([[[0.3]]])
    above = math.nextafter(float(score), 1)
    assert blamed(score, (None, above)) == ["none"]
    assert blamed(score, (None, float(score))) == ["teacher"]


@pytest.mark.parametrize("threshold", [(0.1, 0.1), (0.2, -0.2)])
def test_thresholds_out_of_order(threshold):
    with pytest.raises(SpecError, match="low < high"):
        bounds(threshold)
