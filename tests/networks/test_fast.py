"""The fast copy computes the same function."""

import jaxtyping
import pytest
import torch
from torch import nn

from robustseg.core.registry import build
from robustseg.losses.pixelwise import cross_entropy
from robustseg.networks.erfnet import ERFNet
from robustseg.networks.fast import Subpixel, _Fast, fast
from robustseg.testing import PixelNetwork, SmallNetwork, check_network, gray_space


@pytest.fixture
def untyped():
    """Symbolic tracing passes proxies for tensors, which the type checks of the test run refuse."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def _shake(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network.double()


@pytest.mark.parametrize(
    "network",
    [_shake(ERFNet(classes=gray_space(5), width=0.25)), _shake(SmallNetwork()), PixelNetwork()],
    ids=["erfnet", "small", "pixel"],
)
@pytest.mark.parametrize("size", [(32, 48), (33, 51)])
def test_same_logits_and_gradient(network, size, untyped):
    network.train()
    quick = fast(network)
    assert isinstance(quick, _Fast)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    network.eval()
    images = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(4, (2, *size))
    torch.testing.assert_close(quick(images), network(images))
    for name, features in network.features(images).items():
        torch.testing.assert_close(quick.features(images)[name], features)
    pairs = [torch.autograd.grad(cross_entropy(n, images, labels).sum(), images)[0] for n in (quick, network)]
    torch.testing.assert_close(*pairs)


def test_a_fast_network_is_a_network(untyped):
    check_network(fast(ERFNet(classes=gray_space(5), width=0.25)))


def test_nothing_slow_is_left(untyped):
    quick = fast(ERFNet(classes=gray_space(5), width=0.25))
    kinds = [type(m) for m in quick.quick.modules()]
    assert nn.ConvTranspose2d not in kinds
    assert kinds.count(nn.BatchNorm2d) == 3  # behind the concatenations of the downsamplers


@pytest.mark.parametrize(
    "spec",
    [
        "smp('Unet', encoder='resnet18', encoder_depth=3, decoder_channels=(16, 8, 8))",
        "torchvision('lraspp_mobilenet_v3_large', classes='camvid')",
    ],
)
def test_foreign_networks_lose_their_norms_and_keep_their_logits(spec, untyped):
    if spec.startswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    network = _shake(build("network", spec)).float().eval()
    quick = fast(network)
    assert isinstance(quick, _Fast)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in quick.quick.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    images = torch.rand(1, 3, 70, 100)
    with torch.no_grad():
        logits = network(images)
        torch.testing.assert_close(quick(images), logits, rtol=0, atol=1e-4 * float(logits.abs().max()))


class _Parted(PixelNetwork):
    """A whole that no trace follows, with a part whose attribute it asks for."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
        self.part.stride = 4
        self.double()

    def forward(self, images):
        assert images.shape[-1] % self.part.stride == 0
        return self.convolution(self.part(images))


def test_the_parts_of_a_network_that_cannot_be_traced_are_made_faster(untyped):
    network = _shake(_Parted()).eval()
    quick = fast(network)
    assert isinstance(quick, _Fast)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in quick.modules() if m not in set(quick.network.modules()))
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(quick(images), network(images))


class _Branching(PixelNetwork):
    def forward(self, images):
        return super().forward(images) if images.sum() > 0 else super().forward(images) * 2


def test_a_network_that_cannot_be_traced_is_copied(untyped):
    network = _Branching()
    quick = fast(network)
    assert quick is not network
    images = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(quick(images), network(images))


class _Sharing(PixelNetwork):
    """Both summands get one gradient; the second's convolution gives none, so that its ReLU is handed the shared one."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.double()

    def forward(self, images):
        first, second = self.first(images).relu(), self.second(images).relu()
        return self.convolution(first + second + self.third(second).detach())


def test_a_gradient_that_two_share_is_not_overwritten(untyped):
    torch.manual_seed(0)
    network, images = _Sharing(), torch.rand(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    expected, got = (torch.autograd.grad(n(images)[:, 0].sum(), images)[0] for n in (network, fast(network)))
    torch.testing.assert_close(got, expected)


class _Drawing(PixelNetwork):
    def forward(self, images):
        return super().forward(images) + torch.rand(())


def test_a_trace_that_kept_a_random_draw_is_not_used(untyped):
    assert type(fast(_Drawing())) is _Drawing


def test_mixed_precision_of_the_caller_does_not_spoil_the_check(untyped):
    network = ERFNet(classes=gray_space(5), width=0.25)
    with torch.autocast("cpu", torch.bfloat16):
        assert isinstance(fast(network), _Fast)


class _TwoLayers(PixelNetwork):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.float()

    def forward(self, images):
        return self.convolution(self.first(images).relu())


def test_in_bfloat16_a_step_below_its_own_is_still_seen(untyped):
    """Around 0.75 bfloat16 has steps of 1/256: a network that rounds its images does not see 0.3/255."""
    torch.manual_seed(0)
    network, images = _TwoLayers(), torch.full((1, 3, 16, 24), 0.75)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for each, seen in ((network, False), (fast(network), True)):
            assert torch.equal(each(images), each(images + 0.3 / 255)) != seen


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "output_padding"),
    [(2, 2, 0, 0), (3, 2, 1, 1), (4, 2, 1, 0), (5, 3, 1, 0), (6, 4, 1, 0), (1, 2, 0, 1)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_subpixel_equals_transposed_convolution(kernel, stride, padding, output_padding, bias):
    module = nn.ConvTranspose2d(3, 4, kernel, stride, padding, output_padding, bias=bias).double()
    assert Subpixel.fits(module)
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    for planes in (False, True):
        torch.testing.assert_close(Subpixel(module, planes=planes)(x), module(x))


def test_a_transposed_convolution_of_another_size_is_left_alone():
    assert not Subpixel.fits(nn.ConvTranspose2d(3, 4, 3, stride=2))
    assert not Subpixel.fits(nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2))


@pytest.mark.parametrize("size", [(16, 24), (12, 20)])  # a multiple of what the network divides by, and none
def test_images_may_be_rounded_already_under_autocast(size):
    network = build("network", "erfnet(classes='camvid', width=0.25)").eval()
    images = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert fast(network)(images).shape[-2:] == size
