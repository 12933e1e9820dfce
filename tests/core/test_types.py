"""Budgets, random streams, frozen networks, and the checks on shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustseg.core import types
from robustseg.core.budget import Budget, as_255, fraction
from robustseg.core.errors import ShapeError, SpecError
from robustseg.core.random import ImageRng
from robustseg.core.types import Batch, Sample, device_of, dtype_of, frozen, most_likely, require_pair

SHAPE = (3, 5, 7)
LIKE = torch.zeros(4, *SHAPE)
IDS = ("a_1", "a_2", "b_1", "b_2")


# Budget


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


def test_fractions():
    assert fraction("8/255") == 8 / 255
    assert fraction(0.5) == fraction("0.5") == fraction("1/2") == 0.5
    assert as_255(8 / 255) == "8/255"
    assert as_255(0.25 / 255) == "0.25/255"
    with pytest.raises(SpecError, match="fraction"):
        fraction("eight")


def test_device_and_dtype_are_those_of_the_parameters(pixel_network):
    assert (device_of(pixel_network), dtype_of(pixel_network)) == (torch.device("cpu"), torch.float64)
    assert (device_of(torch.nn.Identity()), dtype_of(torch.nn.Identity())) == (torch.device("cpu"), torch.float32)
    assert device_of(torch.nn.Linear(1, 1, device="meta")).type == "meta"


# ImageRng


@pytest.mark.parametrize("draw", ["uniform", "normal", "sign"])
def test_draws_do_not_depend_on_batch_or_order(draw):
    def take(ids):
        return getattr(ImageRng(5, ids), draw)(SHAPE, like=torch.zeros(len(ids), *SHAPE))

    together = take(IDS)
    assert together.shape == (4, *SHAPE)
    for i, key in enumerate(IDS):
        assert torch.equal(take((key,))[0], together[i])
    assert torch.equal(take(IDS[::-1]), together.flip(0))
    assert not torch.equal(together[0], together[1])
    assert take(()).shape == (0, *SHAPE)


def test_streams_differ_by_seed_purpose_and_id_and_move_on():
    first = ImageRng(0, IDS)
    draws = [
        first.uniform(SHAPE, LIKE),
        first.uniform(SHAPE, LIKE),
        ImageRng(1, IDS).uniform(SHAPE, LIKE),
        first.fork("start").uniform(SHAPE, LIKE),
        first.fork("stop").uniform(SHAPE, LIKE),
        ImageRng(0, [i + "x" for i in IDS]).uniform(SHAPE, LIKE),
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_fork_and_repeat_do_not_depend_on_what_was_drawn():
    fresh, used = ImageRng(0, IDS), ImageRng(0, IDS)
    used.normal(SHAPE, LIKE)
    assert torch.equal(fresh.fork("a").uniform(SHAPE, LIKE), used.fork("a").uniform(SHAPE, LIKE))
    twice = torch.zeros(8, *SHAPE)
    repeated = used.repeat(2).uniform(SHAPE, twice)
    assert torch.equal(repeated, fresh.repeat(2).uniform(SHAPE, twice))
    assert torch.equal(repeated[:4], ImageRng(0, IDS).uniform(SHAPE, LIKE))
    assert not torch.equal(repeated[:4], repeated[4:])


def test_selected_streams_are_shared():
    rng = ImageRng(0, IDS)
    rng.select([2]).uniform(SHAPE, LIKE[:1])
    moved, fresh = rng.uniform(SHAPE, LIKE), ImageRng(0, IDS).uniform(SHAPE, LIKE)
    assert [torch.equal(a, b) for a, b in zip(moved, fresh, strict=True)] == [True, True, False, True]


def test_draws_leave_the_global_generator_alone_and_follow_dtype():
    state = torch.get_rng_state()
    assert ImageRng(0, IDS).normal(SHAPE, LIKE.double()).dtype == torch.float64
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(ImageRng(0, IDS).normal(SHAPE, LIKE.double()).float(), ImageRng(0, IDS).normal(SHAPE, LIKE))


def test_one_stream_an_image():
    with pytest.raises(ShapeError, match="4 streams for 3 images"):
        ImageRng(0, IDS).uniform(SHAPE, LIKE[:3])


def test_the_draws_have_their_moments():
    like = torch.zeros(1, 100_000)
    rng = ImageRng(0, ["a"])
    uniform, normal, sign = rng.uniform((100_000,), like), rng.normal((100_000,), like), rng.sign((100_000,), like)
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert normal.std() == pytest.approx(1, abs=0.01)
    assert sign.unique().tolist() == [-1, 1]
    assert sign.mean() == pytest.approx(0, abs=0.02)


# frozen, require_pair, Batch


def test_frozen_restores_every_mode_and_flag_also_after_an_error(small_network):
    small_network.train()
    small_network.layers[1].eval()
    small_network.layers[0].weight.requires_grad_(False)

    def state():
        return [m.training for m in small_network.modules()], [p.requires_grad for p in small_network.parameters()]

    def fail():
        assert not any(m.training for m in small_network.modules())
        assert not any(p.requires_grad for p in small_network.parameters())
        raise RuntimeError("inside")

    before = state()
    with pytest.raises(RuntimeError, match="inside"), frozen(small_network):
        fail()
    assert state() == before


def test_pairs_of_images_and_labels():
    labels = torch.zeros(4, *SHAPE[1:], dtype=torch.int64)
    require_pair(LIKE, labels)
    for images, other in [(LIKE, labels.int()), (LIKE, labels[:3]), (LIKE.int(), labels), (LIKE[:, :2], labels)]:
        with pytest.raises(ShapeError, match="expected"):
            require_pair(images, other)


def test_a_batch_keeps_the_extras_that_all_samples_have():
    image, labels = torch.rand(3, 2, 2), torch.zeros(2, 2, dtype=torch.int64)
    batch = Batch.of(
        [
            Sample(image, labels, "a", {"depth": labels.float(), "moving": labels > 0}),
            Sample(image, labels, "b", {"depth": labels.float()}),
        ]
    )
    assert batch.ids == ("a", "b")
    assert set(batch.extras) == {"depth"}
    assert batch.images.shape == (2, 3, 2, 2)


@pytest.mark.parametrize("text", ["linf:8", "linf:255/8"])
def test_a_budget_in_gray_levels_is_a_slip(text):
    with pytest.raises(SpecError, match="try 'linf:8/255'"):
        Budget.parse(text)


# Predictions


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [1, 2, 19, 255, 300])
def test_the_most_likely_class_is_the_argmax_and_of_equals_the_first(classes, dtype, memory_format, monkeypatch):
    monkeypatch.setattr(types, "band_rows", lambda logits: 2)
    logits = torch.randn(2, classes, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[:, :, 0] = logits[:, :, 0].round()  # many equals
    logits[0, :, 1], logits[0, :, 2], logits[0, classes // 2 :, 3] = -torch.inf, 0, torch.inf
    logits = logits.contiguous(memory_format=memory_format)
    assert torch.equal(most_likely(logits), logits.argmax(1))
    logits[1, -1, 4, 4] = torch.nan
    assert torch.equal(most_likely(logits), logits.argmax(1))
    assert most_likely(logits[:0]).shape == (0, 5, 6)
