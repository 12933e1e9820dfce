"""Noise: realised strength, pairing over strengths, and what the options do."""

import math

import pytest
import torch

from robustseg.core import registry
from robustseg.core.errors import SpecError
from robustseg.core.random import ImageRng
from robustseg.perturbations.noise import gaussian, salt_and_pepper, sign, uniform

GRAY = torch.full((2, 3, 160, 200), 0.5)
NOISES = [gaussian, uniform, sign, salt_and_pepper]


def _rng(seed=0, ids=("a", "b")):
    return ImageRng(seed, ids)


def _rms(images, origin):
    return (images - origin).double().square().flatten(1).mean(1).sqrt()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("size", [1, 4, 8, 16])
def test_realised_rms_on_middle_gray(noise, size):
    realised = _rms(noise(GRAY, rms=size / 255, rng=_rng()), GRAY)
    # salt and pepper has few hits when weak: 96000 * 4 * (1/255)^2 = 6 of them
    spread = 1 / math.sqrt(96000 * 4 * (size / 255) ** 2) if noise is salt_and_pepper else 0.01
    assert torch.all((realised * 255 / size - 1).abs() < 3 * spread)


@pytest.mark.parametrize("noise", NOISES)
def test_zero_returns_the_input_bit_for_bit(noise):
    images = torch.rand(2, 3, 9, 11)
    result = noise(images, rms=0, rng=_rng())
    assert torch.equal(result, images)
    assert result is not images


@pytest.mark.parametrize("noise", [gaussian, uniform, sign])
def test_strengths_are_the_same_draw_scaled(noise):
    weak, strong = (noise(GRAY.double(), rms=s / 255, rng=_rng()) - 0.5 for s in (2, 8))
    torch.testing.assert_close(strong, 4 * weak)


def test_salt_and_pepper_hits_more_of_the_same_values():
    weak, strong = (salt_and_pepper(GRAY, rms=s, rng=_rng()) for s in (0.05, 0.2))
    hit = weak != 0.5
    assert torch.equal(weak[hit], strong[hit])
    assert (strong != 0.5).sum() > hit.sum()


def test_salt_and_pepper_hits_values_not_pixels_and_both_colours_alike():
    hit = salt_and_pepper(GRAY, rms=0.1, rng=_rng())
    share = (hit != 0.5).float().mean()
    assert share == pytest.approx(0.04, rel=0.05)
    assert (hit == 1).sum() / (hit != 0.5).sum() == pytest.approx(0.5, abs=0.02)
    alone = ((hit != 0.5).sum(1) == 1).sum()
    assert alone > 0.9 * ((hit != 0.5).sum(1) > 0).sum()


def test_salt_and_pepper_on_a_dark_image_is_stronger_than_asked_unless_matched():
    dark = torch.full((2, 3, 160, 200), 0.1)
    plain = _rms(salt_and_pepper(dark, rms="16/255", rng=_rng()), dark) * 255 / 16
    matched = _rms(salt_and_pepper(dark, rms="16/255", match=True, rng=_rng()), dark) * 255 / 16
    torch.testing.assert_close(
        plain, torch.full((2,), math.sqrt(1 + 4 * 0.4**2), dtype=torch.float64), rtol=0.06, atol=0
    )
    torch.testing.assert_close(matched, torch.ones(2, dtype=torch.float64), rtol=0.06, atol=0)


def test_sign_moves_every_value_by_exactly_rms():
    change = sign(GRAY.double(), rms="4/255", rng=_rng()) - 0.5
    torch.testing.assert_close(change.abs(), torch.full_like(change, 4 / 255))
    assert change.mean().abs() < 1e-3


def test_uniform_stays_within_sqrt_3_rms_and_fills_it():
    change = (uniform(GRAY, rms=0.1, rng=_rng()) - 0.5).abs().max()
    assert 0.999 * math.sqrt(0.03) < change <= math.sqrt(0.03)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_stays_in_range(noise):
    result = noise(torch.rand(2, 3, 20, 20), rms=0.5, rng=_rng())
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("noise", NOISES)
def test_bad_strengths_are_refused(noise):
    for rms in (-0.1, "nan", "strong", float("inf")):
        with pytest.raises(SpecError, match="expected"):
            noise(GRAY, rms=rms, rng=_rng())


def test_salt_and_pepper_has_a_largest_strength():
    salt_and_pepper(GRAY, rms=0.5, rng=_rng())
    with pytest.raises(SpecError, match=r"from 0 to 0\.5"):
        salt_and_pepper(GRAY, rms=0.6, rng=_rng())


def test_a_spec_may_say_a_fraction_either_way():
    texts = ("gaussian(rms='8/255')", "gaussian(rms=8/255)")
    first, second = (registry.build("perturbation", t)(None, GRAY, None, rng=_rng()) for t in texts)
    assert torch.equal(first, second)
