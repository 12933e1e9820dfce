"""Rounding to 8 bit: all that round agree, files give back what was rounded, and no budget is exceeded."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from robustseg.attacks.steps import round_to_8bit
from robustseg.core.levels import to_8bit
from robustseg.core.random import ImageRng
from robustseg.networks.fronts import Jpeg
from robustseg.perturbations.saved import saved
from robustseg.results.panels import quantised
from robustseg.synthesis.output import picture_of
from robustseg.testing import SmallNetwork

DTYPES = [torch.float32, torch.float64]


def _values(dtype: torch.dtype) -> torch.Tensor:
    """Every level, every tie between two, both sides of each, and random values: `[1, 3, h, w]`."""
    whole = torch.arange(256, dtype=torch.float64) / 255
    ties = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    near = torch.cat([edge + step for edge in (whole, ties) for step in (-1e-7, 0.0, 1e-7)]).clamp(0, 1)
    drawn = torch.rand(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.cat([near, drawn]).to(dtype)
    return values[: len(values) // 96 * 96].view(1, 3, 32, -1)


def _written(images: torch.Tensor) -> torch.Tensor:
    """Levels as they stand in a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(quantised(images[0].numpy())).save(buffer, "PNG")
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)[None]


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_that_round_agree(tmp_path, dtype):
    images = _values(dtype)
    expected = to_8bit(images)
    assert expected.dtype == torch.uint8
    assert torch.equal(expected.double(), (images * 255).round().double())
    assert np.array_equal(to_8bit(images.numpy()), expected.numpy())
    assert torch.equal(_written(images), expected)
    assert np.array_equal(quantised(images[0].numpy()), expected[0].permute(1, 2, 0).numpy())
    assert np.array_equal(picture_of(images[0]), quantised(images[0].float().numpy()))
    still = saved(
        SmallNetwork(), images, torch.zeros(1, *images.shape[2:]).long(), folder=str(tmp_path),
        perturbation=_Moved(images), rng=ImageRng(0, ["a"]),
    )  # fmt: skip
    assert torch.equal(to_8bit(still), expected), "what is not changed goes to the nearest level"
    jpeg = Jpeg(SmallNetwork().to(dtype))
    assert torch.equal(jpeg.rounded(images), jpeg.rounded(expected.to(dtype) / 255))


@pytest.mark.parametrize("dtype", DTYPES)
def test_levels_are_read_back_as_they_were_written(dtype):
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    images = levels.to(dtype) / 255
    assert torch.equal(to_8bit(images), levels)
    assert torch.equal(to_8bit(images, towards=1 - images), levels)
    assert np.array_equal(to_8bit(images.numpy(), towards=(1 - images).numpy()), levels.numpy())


class _Moved:
    """A perturbation that gives these images."""

    spec = "moved"

    def __init__(self, images):
        self.images = images

    def __call__(self, network, images, labels, *, rng):
        return self.images


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("whole", [True, False])
def test_a_change_is_rounded_towards_its_original_and_alike_for_all(tmp_path, dtype, whole):
    images = _values(dtype)
    origin = images.flatten()[torch.randperm(images.numel(), generator=torch.Generator().manual_seed(1))].view_as(
        images
    )
    if whole:
        origin = to_8bit(origin).to(dtype) / 255
    levels = to_8bit(images, towards=origin)
    assert np.array_equal(to_8bit(images.numpy(), towards=origin.numpy()), levels.numpy())
    change, left = (images - origin).double(), (levels.to(dtype) / 255 - origin).double()
    moved = change != 0
    assert (left.abs() <= change.abs() + 4e-7)[moved & (left * change >= 0)].all(), "no change grows"
    assert ((left.abs() < 1 / 255) | (left * change >= 0)).all(), "at most one level past the original"
    # attacks: the same levels, but for what has no level between it and its original
    rounded = round_to_8bit(images, origin)
    back = (left * change <= 0) | ~moved
    assert torch.equal(rounded[back], origin[back])
    assert torch.equal(rounded[~back], (levels.to(dtype) / 255)[~back])
    if whole:
        assert torch.equal(to_8bit(rounded), levels)
    # files
    read = saved(
        SmallNetwork(), origin, torch.zeros(1, *images.shape[2:]).long(), folder=str(tmp_path),
        perturbation=_Moved(images), rng=ImageRng(0, ["a"]),
    )  # fmt: skip
    assert torch.equal(read, levels.to(dtype) / 255)
