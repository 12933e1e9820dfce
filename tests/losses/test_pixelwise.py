"""Per-pixel losses against their formulas, pixel by pixel, and objectives that leave void out."""

import math
from functools import partial

import pytest
import torch

from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.losses import pixelwise as losses

WEIGHTED = {
    "masked": losses.pixel_masked_cross_entropy,
    "balanced": losses.pixel_balanced_masked_cross_entropy,
    "balanced_by_counts": partial(losses.pixel_balanced_masked_cross_entropy, class_pixels=(5, 1, 7, 0, 20)),
    "segpgd": partial(losses.pixel_segpgd, share=0.3),
    "cospgd": losses.pixel_cospgd,
}
PIXEL_LOSSES = {
    "cross_entropy": losses.pixel_cross_entropy,
    **WEIGHTED,
    "margin": losses.pixel_margin,
    "jensen_shannon": losses.pixel_jensen_shannon,
    "cosine": losses.pixel_cosine,
}


def _by_hand(name, logits, label):
    """One pixel in plain Python."""
    if label == IGNORE:
        return 0.0
    total = sum(math.exp(v) for v in logits)
    p = [math.exp(v) / total for v in logits]
    if name == "cross_entropy" or name in WEIGHTED:  # weights act on the gradient only
        return -math.log(p[label])
    if name == "margin":
        return max(v for i, v in enumerate(logits) if i != label) - logits[label]
    if name == "cosine":
        return 1 - p[label] / math.sqrt(sum(v * v for v in p))
    middle = [(v + (i == label)) / 2 for i, v in enumerate(p)]
    return (sum(v * math.log(v / m) for v, m in zip(p, middle, strict=True)) + math.log(1 / middle[label])) / 2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_pixel_losses_by_hand(name, memory_format):
    logits = torch.randn(2, 5, 3, 4, dtype=torch.float64).contiguous(memory_format=memory_format)
    labels = torch.randint(5, (2, 3, 4))
    labels[0, 0] = IGNORE
    values = PIXEL_LOSSES[name](logits, labels)
    assert values.shape == labels.shape
    for b in range(2):
        for i in range(3):
            for j in range(4):
                expected = _by_hand(name, logits[b, :, i, j].tolist(), int(labels[b, i, j]))
                assert float(values[b, i, j]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_bands_of_rows_give_the_same_as_the_whole(name, memory_format, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, 4, generator=generator).to(memory_format=memory_format).requires_grad_()
    labels, weights = torch.randint(5, (2, 7, 4), generator=generator), torch.rand(2, 7, 4, generator=generator)
    labels[0, 2:4] = IGNORE
    found = []
    for rows in (7, 3, 1):
        monkeypatch.setattr(losses, "band_rows", lambda logits, rows=rows: rows)
        values = PIXEL_LOSSES[name](logits, labels)
        found.append((values.detach(), *torch.autograd.grad(values, logits, weights)))
    assert found[0][1].any()
    for values, gradient in found[1:]:
        torch.testing.assert_close(values, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_losses_of_bfloat16_logits_are_those_of_float32(name):
    logits = torch.randn(1, 5, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    exact, labels = logits.detach().float().requires_grad_(), torch.arange(12).view(1, 3, 4) % 5
    values, wanted = PIXEL_LOSSES[name](logits, labels), PIXEL_LOSSES[name](exact, labels)
    torch.testing.assert_close(values, wanted)
    gradient, expected = (torch.autograd.grad(v.sum(), x)[0] for v, x in ((values, logits), (wanted, exact)))
    torch.testing.assert_close(gradient, expected.bfloat16())


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_gradients_are_finite_even_where_the_network_is_certain(name):
    logits = (1e4 * torch.eye(5)).view(1, 5, 1, 5).requires_grad_()
    labels = torch.tensor([[[0, 1, 1, IGNORE, 4]]])
    values = PIXEL_LOSSES[name](logits, labels)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    assert not gradient[..., 3].any()


@pytest.mark.parametrize("name", sorted(losses.OBJECTIVES))
def test_objectives_average_over_labelled_pixels_only(name, pixel_network):
    images = torch.rand(3, 3, 4, 6, dtype=torch.float64)
    labels = torch.randint(4, (3, 4, 6))
    labels[0, :, :3] = IGNORE
    labels[2] = IGNORE
    values = losses.objective(name)(pixel_network, images, labels)
    cut = losses.objective(name)(pixel_network, images[:1, ..., 3:], labels[:1, :, 3:])
    torch.testing.assert_close(values[:1], cut)
    assert values[2] == 0
    elsewhere = images.clone()
    elsewhere[0, ..., :3] = 0
    assert torch.equal(values, losses.objective(name)(pixel_network, elsewhere, labels))


def _pull_by_hand(name, logits, label, own_pixels, total, present, towards):
    """The weight of one pixel's cross-entropy in the gradient."""
    right = max(range(len(logits)), key=logits.__getitem__) == label
    p = torch.tensor(logits, dtype=torch.float64).softmax(0)
    cosine = float(p[label] / p.norm())
    counts = (5, 1, 7, 0, 20)
    return {
        "masked": float(right),
        "balanced": right * total / (present * own_pixels),
        "balanced_by_counts": right * 33 / (4 * max(1, counts[label])),
        "segpgd": 0.7 if right != towards else 0.3,
        "cospgd": 1 - cosine if towards else cosine,
    }[name]


@pytest.mark.parametrize(("name", "towards"), [*((n, False) for n in WEIGHTED), ("segpgd", True), ("cospgd", True)])
def test_weights_act_on_the_gradient_only(name, towards):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=generator).mul(2).requires_grad_()
    labels = torch.randint(5, (2, 3, 4), generator=generator)
    labels[0, 0] = IGNORE
    loss = partial(WEIGHTED[name], towards=True) if towards else WEIGHTED[name]
    (weighted,) = torch.autograd.grad(loss(logits, labels).sum(), logits)
    (plain,) = torch.autograd.grad(losses.pixel_cross_entropy(logits, labels).sum(), logits)
    for b in range(2):
        known = labels[b][labels[b] != IGNORE]
        for i in range(3):
            for j in range(4):
                label = int(labels[b, i, j])
                if label == IGNORE:
                    assert not weighted[b, :, i, j].any()
                    continue
                numbers = (int((known == label).sum()), len(known), len(known.unique()))
                weight = _pull_by_hand(name, logits[b, :, i, j].tolist(), label, *numbers, towards)
                torch.testing.assert_close(weighted[b, :, i, j], weight * plain[b, :, i, j])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4, 3e38])
def test_jensen_shannon_is_finite_at_any_logit_and_right(dtype, size):
    logits = torch.tensor([[size, -size], [-size, size], [size, size], [0, 0]], dtype=dtype).T.reshape(1, 2, 1, 4)
    logits.requires_grad_()
    values = losses.pixel_jensen_shannon(logits, torch.zeros(1, 1, 4, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    p = 1 / (1 + math.exp(min(700, 2 * size)))
    lost = math.log(2) + (p * math.log(p) - (1 + p) * math.log1p(p)) / 2
    even = math.log(2) + (0.5 * math.log(0.5) - 1.5 * math.log(1.5)) / 2
    torch.testing.assert_close(values[0, 0, 1:].detach(), torch.tensor([lost, even, even], dtype=dtype))
    slope = 0.5 * (math.log(0.5) - math.log(1.5)) / 2 * 0.5  # dJS/dp * dp/dlogit
    torch.testing.assert_close(gradient[0, :, 0, 3], torch.tensor([slope, -slope], dtype=dtype))
    push = p * (math.log(p) - math.log1p(p)) / 2  # of a pixel that is lost: small, and exact until p underflows
    torch.testing.assert_close(gradient[0, 0, 0, 1], torch.tensor(push * (1 - p), dtype=dtype))


def test_wrong_pixels_counts_what_the_network_says(pixel_network):
    images = torch.rand(2, 3, 4, 6, dtype=torch.float64)
    labels = pixel_network(images).argmax(1).detach()
    labels[0, 0, :3] = (labels[0, 0, :3] + 1) % 4
    labels[0, 3] = IGNORE
    assert losses.wrong_pixels(pixel_network, images, labels).tolist() == [3 / 18, 0]


def test_a_spec_gives_class_pixels_after_a_colon(pixel_network):
    images = torch.rand(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(4, (2, 4, 6))
    named, built = losses.objective("balanced_masked_cross_entropy:1,2,3,40"), losses.balanced((1, 2, 3, 40))
    gradients = [torch.autograd.grad(o(pixel_network, images, labels).sum(), images)[0] for o in (named, built)]
    assert torch.equal(*gradients)
    with pytest.raises(SpecError, match=r"whole numbers after the colon.*:1200,340"):
        losses.objective("balanced_masked_cross_entropy:1,two")
    with pytest.raises(SpecError, match="pixels of every class, got 2"):
        losses.objective("balanced_masked_cross_entropy:1,2")(pixel_network, images, labels.clamp_min(2))


def test_losses_grow_as_the_prediction_leaves_the_label(pixel_network):
    labels = torch.zeros(1, 1, 9, dtype=torch.int64)
    logits = torch.stack([torch.linspace(3, -3, 9), torch.zeros(9)]).view(1, 2, 1, 9)
    for loss in PIXEL_LOSSES.values():
        assert (loss(logits, labels).diff() > 0).all()


def test_an_unknown_objective_names_the_known():
    with pytest.raises(SpecError, match=r"got 'entropy'.*cross_entropy, margin"):
        losses.objective("entropy")


def test_a_callable_objective_is_itself():
    assert losses.objective(losses.cross_entropy) is losses.cross_entropy


def test_total_variation_counts_pairs_that_touch_the_mask():
    images = torch.zeros((1, 3, 2, 3))
    images[0, :, 0] = torch.tensor([0.0, 0.5, 0.5])
    assert losses.total_variation(images).item() == pytest.approx((0.5 + 0.5 + 0.5) / 7)  # four pairs right, three down
    masks = torch.tensor([[[True, False, False], [False, False, False]]])
    assert losses.total_variation(images, masks).item() == pytest.approx(0.5 / 2)
    assert losses.total_variation(images, torch.zeros_like(masks)).item() == 0
