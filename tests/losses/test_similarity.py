"""Structural similarity against torchmetrics, by hand, and its gradient, whose way back is written by hand."""

import pytest
import torch

from robustseg.core.errors import ShapeError
from robustseg.losses.similarity import Likeness, ssim


@pytest.mark.filterwarnings("ignore")
def test_ssim_is_that_of_torchmetrics():
    oracle = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    generator = torch.Generator().manual_seed(0)
    first = torch.rand((2, 3, 24, 30), generator=generator, dtype=torch.float64)
    second = (first + 0.2 * torch.randn(first.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    _, full = oracle(second, first, data_range=1.0, return_full_image=True)
    assert torch.allclose(ssim(first, second), full.mean(1), atol=1e-7)  # theirs takes a float32 window
    assert torch.allclose(ssim(first, first), torch.ones_like(first[:, 0]))


def test_ssim_over_a_box_by_hand():
    first = torch.rand((1, 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = first.flip(-1)
    expected = []
    for colour in range(3):
        a, b = first[0, colour, 1:4, 1:4].flatten(), second[0, colour, 1:4, 1:4].flatten()
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        top = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
        expected.append(
            top / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var(correction=0) + b.var(correction=0) + 9e-4))
        )
    box = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert ssim(first, second, window=box)[0, 2, 2].item() == pytest.approx(float(torch.stack(expected).mean()))


def test_the_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand((1, 2, 4, 5), generator=generator, dtype=torch.float64) for _ in range(2))
    box = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    for wanted in ((True, True), (True, False), (False, True)):
        inputs = [x.requires_grad_(w) for x, w in zip((first, second), wanted, strict=True)]
        assert torch.autograd.gradcheck(lambda a, b: ssim(a, b, window=box), inputs)
    slope = torch.autograd.grad
    with pytest.raises(RuntimeError, match="expected one derivative"):
        slope(ssim(first, second, window=box).sum(), second, create_graph=True)


def test_one_likeness_serves_many_images():
    first, *others = torch.rand((3, 2, 3, 12, 14), generator=torch.Generator().manual_seed(0))
    likeness = Likeness(first)
    assert all(torch.equal(likeness(other), ssim(first, other)) for other in others)
    with pytest.raises(ShapeError, match=r"expected images \[2, 3, 12, 14\] to compare, got \[1, 3, 12, 14\]"):
        likeness(first[:1])


@pytest.mark.parametrize("window", [None, torch.full((3,), 1 / 3)], ids=["gaussian", "box"])
def test_an_image_is_exactly_like_itself_where_it_is_flat_too(window: torch.Tensor | None) -> None:
    image = torch.rand((2, 3, 24, 32), generator=torch.Generator().manual_seed(0))
    image[..., :12, :] = 0.95 + 1e-4 * image[..., :12, :]  # a bright sky: its variance is what rounding leaves
    assert torch.equal(ssim(image, image, window=window), torch.ones(2, 24, 32))
