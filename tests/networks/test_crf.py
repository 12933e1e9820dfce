"""Mean field against the double loop over all pairs, its gradient, its safety, and what it does to labels and attacks."""

import math

import pytest
import torch

from robustseg import api
from robustseg.core.errors import SpecError
from robustseg.core.types import Network
from robustseg.losses.pixelwise import cross_entropy
from robustseg.networks.crf import MeanFieldCRF
from robustseg.networks.fast import fast
from robustseg.networks.weights import load, save
from robustseg.testing import PixelNetwork, SmallNetwork, check_network, gray_space
from robustseg.training import Recipe, train

SETTINGS = {"weights": (2.0, 1.5), "theta_alpha": 4.0, "theta_beta": 0.3, "theta_gamma": 1.5}
GENERATOR = torch.Generator().manual_seed(4)
IMAGES = torch.rand((2, 3, 7, 9), generator=GENERATOR, dtype=torch.float64)
LOGITS = 2 * torch.randn((2, 4, 7, 9), generator=GENERATOR, dtype=torch.float64)


class Given(Network):
    """Answers the logits that it was given, whatever it sees."""

    def __init__(self, logits):
        super().__init__(gray_space(logits.shape[1]), "given")
        self.logits = logits

    def forward(self, images):
        return self.logits


def brute_force(logits, image, *, iterations, weights, theta_alpha, theta_beta, theta_gamma, stride=1):
    """The definition, pair by pair: `[k, h, w]` and `[3, h, w]` in, marginals out."""
    k, height, width = logits.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    n = len(pixels)
    kernels = torch.zeros(2, n, n, dtype=torch.float64)
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels):
            away = (y - v) ** 2 + (x - u) ** 2
            colour = float((image[:, y, x] - image[:, v, u]).square().sum())
            heard = (y - v) % stride == 0 and (x - u) % stride == 0
            near = math.exp(-away / (2 * theta_alpha**2) - colour / (2 * theta_beta**2))
            kernels[0, i, j] = 1 if i == j else stride**2 * near * heard
            kernels[1, i, j] = math.exp(-away / (2 * theta_gamma**2))
    kernels = kernels / kernels.sum(2, keepdim=True)
    kernels[:, range(n), range(n)] = 0
    kernel = weights[0] * kernels[0] + weights[1] * kernels[1]
    unary = logits.reshape(k, n).T
    q = unary.softmax(1)
    for _ in range(iterations):
        q = (unary + kernel @ q).softmax(1)
    return q.T.reshape(k, height, width)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("senders", "stride"), [(63, 1), (20, 2), (6, 4)])
def test_marginals_are_those_of_the_double_loop(dtype, tolerance, senders, stride):
    crf = MeanFieldCRF(Given(LOGITS.to(dtype)), iterations=3, senders=senders, **SETTINGS)
    found = crf(IMAGES.to(dtype)).exp()
    for logits, image, marginals in zip(LOGITS, IMAGES, found, strict=True):
        expected = brute_force(logits, image, iterations=3, stride=stride, **SETTINGS)
        torch.testing.assert_close(marginals.double(), expected, rtol=0, atol=tolerance)


def test_two_pixels_have_a_known_answer():
    """One iteration on two equal pixels: each adds w k / (1 + k) of the other's softmax to its logits."""
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]], dtype=torch.float64)
    crf = MeanFieldCRF(
        Given(logits), iterations=1, weights=(6.0, 0.0), theta_alpha=1.0, theta_beta=0.1, theta_gamma=1.0
    )
    k = math.exp(-0.5)
    first = 1 / (1 + math.exp(-1))
    second = 6 * k / (1 + k) * (2 * first - 1)
    marginals = crf(torch.full((1, 3, 1, 2), 0.3, dtype=torch.float64)).exp().detach()
    assert float(marginals[0, 0, 0, 1]) == pytest.approx(1 / (1 + math.exp(-second)))
    assert float(marginals[0, 0, 0, 0]) == pytest.approx(first)


@pytest.mark.parametrize("senders", [63, 8])
def test_its_gradient_in_logits_images_and_weights_is_right(senders):
    logits = LOGITS[:1, :3, :4, :5].clone().requires_grad_()
    images = IMAGES[:1, :, :4, :5].clone().requires_grad_()
    crf = MeanFieldCRF(Given(logits), iterations=2, senders=senders, **SETTINGS).double()

    def marginals(logits, images, weights):
        crf.__dict__["_parameters"] = {"weights": weights}
        return crf.log_marginals(logits, images)

    weights = crf.weights.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(marginals, (logits, images, weights))


@pytest.mark.parametrize("size", [1e2, 1e5, 1e30])
def test_saturated_logits_stay_numbers(size):
    logits = (size * LOGITS.float()).requires_grad_()
    images = IMAGES.float().requires_grad_()
    found = MeanFieldCRF(Given(logits), **SETTINGS)(images)
    assert found.isfinite().all()
    for gradient in torch.autograd.grad(found.logsumexp(1).sum() + found.amax(1).sum(), (logits, images)):
        assert gradient.isfinite().all()


def test_without_weights_it_is_the_softmax():
    crf = MeanFieldCRF(Given(LOGITS), weights=(0.0, 0.0))
    torch.testing.assert_close(crf(IMAGES), LOGITS.log_softmax(1))


def test_a_lone_wrong_pixel_is_outvoted_by_its_colour():
    logits = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    logits[:, 0, :, :4], logits[:, 1, :, 4:] = 2.0, 2.0
    logits[0, :, 3, 1] = torch.tensor([0.0, 1.0])
    images = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    images[..., 4:] = 1.0
    labels = MeanFieldCRF(Given(logits), theta_alpha=4.0, theta_gamma=1.0).predict(images)
    assert labels[0, :, :4].eq(0).all()
    assert labels[0, :, 4:].eq(1).all()


def test_it_keeps_the_contract_and_its_fast_copy_agrees():
    check_network(MeanFieldCRF(SmallNetwork(), senders=64), sizes=((16, 24), (17, 25)))
    check_network(MeanFieldCRF(PixelNetwork().float()), sizes=((16, 24),))
    network = api.network("crf(erfnet(classes='camvid', width=0.25), senders=64)")
    torch.testing.assert_close(fast(network)(IMAGES.float()), network(IMAGES.float()), rtol=1e-3, atol=1e-4)


def test_lower_precision_inside_does_not_reach_the_differences_of_colours():
    crf = MeanFieldCRF(Given(LOGITS.float()), **SETTINGS)
    images = IMAGES.float()
    plain = crf(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(crf(images), plain)


def test_numbers_out_of_range_are_refused():
    for arguments in ({"iterations": 0}, {"theta_beta": 0.0}, {"senders": 0}, {"weights": (1.0, -1.0)}):
        with pytest.raises(SpecError, match="expected numbers above 0"):
            MeanFieldCRF(SmallNetwork(), **arguments)


def test_it_is_saved_with_the_network_inside_and_its_weights(tmp_path):
    crf = api.network("crf(erfnet(classes='camvid', width=0.25), iterations=2, senders=16)")
    with torch.no_grad():
        crf.weights.copy_(torch.tensor([1.0, 0.5]))
    save(crf, tmp_path / "crf.safetensors")
    again = load(tmp_path / "crf.safetensors")
    assert again.architecture == crf.architecture
    assert torch.equal(again(IMAGES.float()), crf(IMAGES.float()))


def test_confident_marginals_leave_less_gradient_than_the_network_alone():
    """The masking of Arnab et al. 2018: the untargeted gradient shrinks where the CRF is sure."""
    inner = PixelNetwork()
    images = torch.full((1, 3, 12, 12), 0.5, dtype=torch.float64)
    images += 0.02 * torch.randn(images.shape, generator=GENERATOR, dtype=torch.float64)
    labels = inner.predict(images)
    sizes = []
    for network in (inner, MeanFieldCRF(inner)):
        leaf = images.clone().requires_grad_()
        sizes.append(torch.autograd.grad(cross_entropy(network, leaf, labels).sum(), leaf)[0].norm())
    assert sizes[1] < 0.5 * sizes[0]


def test_training_moves_its_weights_with_the_network_and_keeps_them(tmp_path):
    crf = api.network("crf(erfnet(classes='camvid', width=0.25), iterations=2, senders=64)")
    data = api.data("streets(scenes=2, frames=1, size='32x48')")
    recipe = Recipe(epochs=1, batch_size=2, crop=(32, 48), ema=0.0, check_every=1)
    best = load(train(crf, data, holdout=data, folder=tmp_path, recipe=recipe))
    assert (best.weights - torch.tensor([3.0, 1.0])).abs().min() > 0
    assert best.spec.startswith("crf(network=erfnet(")
