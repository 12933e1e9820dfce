"""Random streams: one for each image, whatever the batch, the order and the global generator."""

import pytest
import torch

from robustseg.core.errors import ShapeError
from robustseg.core.random import ImageRng

SHAPE = (3, 5, 7)
LIKE = torch.zeros(4, *SHAPE)
IDS = ("a_1", "a_2", "b_1", "b_2")


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
