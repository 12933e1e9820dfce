"""Per-pixel losses against their formulas, pixel by pixel, and objectives that leave void out."""

import math

import pytest
import torch

from robustseg import losses
from robustseg.records import IGNORE, SpecError

PIXEL_LOSSES = {
    "cross_entropy": losses.pixel_cross_entropy,
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
    if name == "cross_entropy":
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
