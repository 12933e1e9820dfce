"""Budgets: their text, the distance and projection of a ball, regions; fractions of 255."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustseg.core.budget import Budget, as_255, fraction
from robustseg.core.errors import SpecError

SHAPE = (3, 5, 7)


@pytest.mark.parametrize(
    ("text", "norm", "eps"),
    [("linf:8/255", "linf", 8 / 255), ("l2:2.5", "l2", 2.5), ("linf:0", "linf", 0), (" linf : 1 ", "linf", 1)],
)
def test_budget_reads_its_text(text, norm, eps):
    assert Budget.parse(text) == Budget(norm, eps)


@pytest.mark.parametrize("text", ["8/255", "l1:3", "linf:", "linf:8/0", "linf:-1", "linf:nan", "linf:inf", "linf:a/b"])
def test_budget_refuses_other_text(text):
    with pytest.raises(SpecError, match="expected"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["linf:8", "linf:255/8"])
def test_a_budget_in_gray_levels_is_a_slip(text):
    with pytest.raises(SpecError, match="try 'linf:8/255'"):
        Budget.parse(text)


@given(n=st.floats(0, 255), norm=st.sampled_from(["linf", "l2"]))
def test_budget_text_round_trips(n, norm):
    budget = Budget(norm, n / 255)
    assert Budget.parse(budget.spec).eps == pytest.approx(budget.eps, rel=1e-5)
    assert Budget.parse(budget) is budget


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["linf", "l2"]), eps=st.floats(0, 1))
def test_projection_is_the_nearest_point(seed, norm, eps):
    generator = torch.Generator().manual_seed(seed)
    origin, images, other = (torch.randn((2, *SHAPE), generator=generator, dtype=torch.float64) for _ in range(3))
    budget = Budget(norm, eps)
    near = budget.project(images, origin)
    assert (budget.distance(near, origin) <= eps * (1 + 1e-9) + 1e-12).all()
    torch.testing.assert_close(budget.project(near, origin), near)
    # no other point of the ball is nearer to what was projected
    inside = budget.project(other, origin)
    assert ((near - images).flatten(1).norm(dim=1) <= (inside - images).flatten(1).norm(dim=1) + 1e-9).all()


def test_projection_at_zero_is_the_origin_bit_for_bit():
    origin = torch.rand(2, *SHAPE)
    for norm in ("linf", "l2"):
        assert torch.equal(Budget(norm, 0.0).project(torch.rand(2, *SHAPE), origin), origin)


@pytest.mark.parametrize("shape", [SHAPE[1:], (2, *SHAPE[1:])])
def test_a_region_keeps_the_rest_unchanged(shape):
    region = torch.zeros(shape, dtype=torch.bool)
    region[..., :2, :3] = True
    origin, images = torch.rand(2, *SHAPE), torch.rand(2, *SHAPE)
    changed = (Budget("linf", 1.0, region).project(images, origin) != origin).any(1)
    assert torch.equal(changed, region.expand(2, *SHAPE[1:]))


@pytest.mark.parametrize("indices", [[1], [2, 0], [0, 1, 2], [2]])
@pytest.mark.parametrize("shape", [(3, *SHAPE[1:]), (1, *SHAPE[1:]), SHAPE[1:]], ids=["each its own", "one", "plain"])
def test_the_budget_of_some_images_keeps_their_regions(shape, indices):
    region = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    whole, images = Budget("linf", 0.1, region), torch.ones(3, *SHAPE)
    part = whole.select(indices)
    assert (part.norm, part.eps) == ("linf", 0.1)
    assert torch.equal(part.masked(images[indices]), whole.masked(images)[indices])
    origin = torch.zeros(len(indices), *SHAPE)
    assert torch.equal(part.project(images[indices], origin), whole.project(images, torch.zeros(3, *SHAPE))[indices])


def test_a_budget_without_a_region_is_that_of_any_images():
    assert Budget("l2", 0.1).select([1]) == Budget("l2", 0.1)


def test_fractions():
    assert fraction("8/255") == 8 / 255
    assert fraction(0.5) == fraction("0.5") == fraction("1/2") == 0.5
    assert as_255(8 / 255) == "8/255"
    assert as_255(0.25 / 255) == "0.25/255"
    with pytest.raises(SpecError, match="fraction"):
        fraction("eight")
