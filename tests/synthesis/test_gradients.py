"""Maps and measures against closed forms: waves, steps, linear networks."""

import math

import pytest
import torch
import torchmetrics.functional.image as oracle

from robustseg.core.errors import SpecError
from robustseg.core.labels import IGNORE
from robustseg.core.random import ImageRng
from robustseg.losses.pixelwise import cross_entropy
from robustseg.results import metrics
from robustseg.synthesis.gradients import (
    NOISE,
    SAMPLES,
    edge_agreement,
    fidelity,
    high_frequency_share,
    input_gradients,
    judged,
)
from robustseg.testing import PixelNetwork, SmallNetwork


def scene(count: int = 2):
    generator = torch.Generator().manual_seed(5)
    images = torch.rand((count, 3, 10, 14), generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (count, 10, 14), generator=generator)
    labels[:, :3] = IGNORE
    return images, labels


def wave(frequency: float, size: int = 64) -> torch.Tensor:
    """A vertical wave of so many cycles a pixel, `[1, 3, size, size]`."""
    return torch.cos(2 * math.pi * frequency * torch.arange(size, dtype=torch.float64)).expand(1, 3, size, size)


def test_the_plain_gradient_of_a_linear_network():
    network = PixelNetwork()
    images, labels = scene()
    maps = input_gradients(network, images, labels)
    weights = network.convolution.weight.detach()[..., 0, 0]
    with torch.no_grad():
        p = network(images).softmax(1)
    onehot = torch.nn.functional.one_hot(labels.clamp_max(3), 4).permute(0, 3, 1, 2)
    expected = torch.einsum("kc,bkhw->bchw", weights, onehot - p) * (labels != IGNORE).unsqueeze(1) / (7 * 14)
    assert torch.allclose(maps, expected)
    assert (maps[:, :, :3] == 0).all()
    assert network.convolution.weight.grad is None


def test_the_smooth_map_is_a_mean_over_noisy_copies():
    network = SmallNetwork()
    images, labels = scene()
    smooth = input_gradients(network, images, labels, kind="smooth", rng=ImageRng(0, ["a", "b"]))
    rng = ImageRng(0, ["a", "b"])
    copies = [images + NOISE * rng.normal(images.shape[1:], images) for _ in range(SAMPLES)]
    expected = torch.stack([input_gradients(network, copy, labels) for copy in copies]).mean(0)
    assert torch.allclose(smooth, expected)
    alone = input_gradients(network, images[1:], labels[1:], kind="smooth", rng=ImageRng(0, ["b"]))
    assert torch.allclose(smooth[1:], alone)


def test_an_integrated_map_sums_to_what_is_gained_on_the_way():
    network = PixelNetwork()
    images, labels = scene()
    maps = input_gradients(network, images, labels, kind="integrated")
    with torch.no_grad():
        gained = cross_entropy(network, torch.full_like(images, 0.5), labels) - cross_entropy(network, images, labels)
    assert torch.allclose(maps.flatten(1).sum(1), gained, atol=2e-4)


def test_maps_of_an_unknown_kind_are_refused():
    images, labels = scene()
    for kind in ("smooth", "guided"):
        with pytest.raises(SpecError, match="expected a kind of plain, smooth, integrated"):
            input_gradients(PixelNetwork(), images, labels, kind=kind)


@pytest.mark.parametrize(("frequency", "share"), [(0.1, 0), (0.2, 0), (0.3, 1), (0.5, 1)])
def test_a_wave_is_low_or_high(frequency, share):
    assert high_frequency_share(wave(frequency)).item() == pytest.approx(share, abs=1e-3)
    assert high_frequency_share(wave(frequency).mT.contiguous()).item() == pytest.approx(share, abs=1e-3)


def test_the_share_of_mixtures_and_of_noise():
    mixed = torch.cat([wave(0.1)[:, :1], 2 * wave(0.4)[:, :1], 0 * wave(0.1)[:, :1]], 1)
    assert high_frequency_share(mixed).item() == pytest.approx(4 / 5, abs=1e-2)
    noise = torch.randn((4, 3, 128, 96), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(high_frequency_share(noise), torch.tensor(1 - math.pi / 16), atol=0.02)
    assert high_frequency_share(torch.zeros(1, 3, 8, 8)).isnan().all()
    assert torch.allclose(high_frequency_share(1e-6 * noise), high_frequency_share(noise))


def test_a_map_on_the_edges_agrees_and_one_beside_them_does_not():
    images = torch.zeros((1, 3, 40, 40), dtype=torch.float64)
    images[..., 20:] = 0.7
    on, off = torch.zeros_like(images), torch.zeros_like(images)
    on[..., 19:21] = 1e-4 * (-1.0) ** torch.arange(40).unsqueeze(1)
    off[..., 5:7] = 1e-4
    assert edge_agreement(on, images).item() == pytest.approx(1)
    assert edge_agreement(off, images).item() < 0
    assert edge_agreement(torch.ones_like(images), images).isnan().all()
    noise = torch.randn((2, 3, 60, 60), generator=torch.Generator().manual_seed(0))
    assert (edge_agreement(noise[:1], noise[1:]).abs() < 0.1).all()


def test_fidelity_of_a_hole_is_that_of_the_library_within_it():
    generator = torch.Generator().manual_seed(0)
    original = torch.rand((2, 3, 20, 24), generator=generator, dtype=torch.float64)
    masks = torch.zeros((2, 20, 24), dtype=torch.bool)
    masks[:, 5:15, 6:18] = True
    filled = torch.where(
        masks.unsqueeze(1), torch.rand(original.shape, generator=generator, dtype=torch.float64), original
    )
    found = fidelity(filled, original, masks)
    _, full = oracle.structural_similarity_index_measure(filled, original, data_range=1.0, return_full_image=True)
    assert torch.allclose(found.ssim, full.mean(1)[:, 5:15, 6:18].mean((1, 2)), atol=1e-6)
    holes = [image[..., 5:15, 6:18] for image in (filled, original)]
    for index in range(2):
        expected = oracle.peak_signal_noise_ratio(*(hole[index] for hole in holes), data_range=1.0)
        assert found.psnr[index].item() == pytest.approx(float(expected))
    same = fidelity(original, original, masks)
    assert same.psnr.isinf().all()
    assert torch.allclose(torch.stack([same.ssim, same.variation]), torch.ones(2, 2, dtype=torch.float64))


def test_a_judge_counts_against_what_was_asked_for():
    network = PixelNetwork()
    images, labels = scene()
    seen = network.predict(images)
    target = torch.where(labels == IGNORE, IGNORE, seen)
    counts = judged(network, images, target, ("a", "b"))
    assert metrics.miou(counts) == 1
    assert int(counts.confusion.sum()) == 2 * 7 * 14
    wrong = judged(network, images, torch.where(target == IGNORE, IGNORE, (seen + 1) % 4), ("a", "b"))
    assert metrics.miou(wrong) == 0
