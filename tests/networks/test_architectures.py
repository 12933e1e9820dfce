"""The architectures of the papers: their sizes, their figures, and that they are networks as any other here."""

from pathlib import Path

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn

from robustseg.core.errors import SpecError
from robustseg.core.registry import build
from robustseg.core.spaces import CAMVID
from robustseg.core.types import Dataset, Sample
from robustseg.networks.deeplab import ASPP, RATES
from robustseg.networks.encoders import VGG, build_encoder
from robustseg.networks.fast import _Fast, fast
from robustseg.networks.fcn import _bilinear
from robustseg.networks.pspnet import PyramidPooling
from robustseg.networks.segnet import SegNet
from robustseg.networks.weights import load, save
from robustseg.testing import check_network
from robustseg.training import Recipe, train

SMALL = [
    "fcn8s(encoder='vgg11_bn', width=0.125)",
    "fcn8s(encoder='resnet18', width=0.125)",
    "segnet(encoder='vgg11_bn', width=0.125)",
    "deeplabv2(encoder='resnet18', width=0.125)",
    "deeplabv2(encoder='vgg11', width=0.125)",
    "pspnet(encoder='resnet18', width=0.125)",
    "dilatednet(encoder='vgg11', width=0.125, levels=8)",
    "icnet(encoder='resnet18', width=0.125)",
]


@pytest.fixture
def untyped():
    """Symbolic tracing passes proxies for tensors, which the type checks of the test run refuse."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def _seeded(spec):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("network", spec)


@pytest.mark.parametrize(
    ("spec", "millions"),
    [
        ("fcn8s(classes=21)", 134.4),  # Long et al. 2015, Table 1: 134 M for FCN-VGG16
        ("segnet(classes=11)", 29.5),  # Badrinarayanan et al. 2017, Table VI: 29.45 M
        ("deeplabv2(classes=21)", 44.0),
        ("pspnet(classes=19)", 46.6),
        ("dilatednet(classes=19, levels=10)", 134.3),
        ("icnet(classes=19)", 6.7),
    ],
)
def test_has_the_size_of_the_paper(spec, millions):
    with torch.device("meta"):
        network = build("network", spec)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("spec", SMALL)
def test_conforms_at_any_size(spec):
    check_network(_seeded(spec), sizes=((64, 96), (37, 50)))


@pytest.mark.parametrize("spec", SMALL)
def test_a_saved_network_comes_back(spec, tmp_path):
    network = _seeded(spec).eval()
    assert network.architecture == spec.replace("(", "(classes='camvid', ")
    save(network, tmp_path / "own.safetensors")
    images = torch.rand(1, 3, 32, 48)
    assert torch.equal(load(tmp_path / "own.safetensors")(images), network(images))


@pytest.mark.parametrize("spec", SMALL)
def test_the_fast_copy_agrees(spec, untyped):
    network = _seeded(spec).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    quick = fast(network)
    assert isinstance(quick, _Fast)
    network.eval()
    images = torch.rand(2, 3, 40, 56, dtype=torch.float64)
    torch.testing.assert_close(quick(images), network(images))


class Halves(Dataset):
    """Two images, dark road below bright sky."""

    spec = "halves"
    label_space = CAMVID
    ids = ("half_0", "half_1")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        labels = torch.tensor([0, 3]).repeat_interleave(16)[:, None].expand(32, 48).contiguous()
        return Sample(
            torch.where(labels == 0, 0.9, 0.2 + 0.1 * index).expand(3, 32, 48).contiguous(), labels, self.ids[index]
        )


@pytest.mark.parametrize("spec", SMALL)
def test_learns_in_half_precision(spec, tmp_path):
    recipe = Recipe(epochs=3, batch_size=2, crop=(32, 48), scale=(1.0, 1.0), colour=0.0, check_every=3)
    losses = []
    best = train(
        _seeded(spec),
        Halves(),
        holdout=Halves(),
        folder=tmp_path,
        recipe=recipe,
        fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"),
        on_step=lambda step: losses.append(step.loss),
    )
    assert losses[-1] < losses[0]
    assert Path(best).is_file()


def test_fcn_starts_with_bilinear_doubling():
    maps = torch.rand(1, 3, 5, 7)
    doubled = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
    inside = (..., slice(1, -1), slice(1, -1))  # at the border one repeats it, the other takes 0
    torch.testing.assert_close(_bilinear(3)(maps)[inside], doubled[inside])


def test_fcn_adds_what_three_maps_say():
    network = _seeded(SMALL[0]).eval().module
    maps = network.encoder(torch.rand(1, 3, 64, 96))
    for score in (network.score_pool3, network.score_pool4, network.score):
        nn.init.zeros_(score.weight)
    for score, value in ((network.score_pool3, 1.0), (network.score_pool4, 10.0), (network.score, 100.0)):
        nn.init.constant_(score.bias, value)
    assert [tuple(m.shape[-2:]) for m in maps[2:]] == [(8, 12), (4, 6), (2, 3)]
    logits = network(torch.rand(1, 3, 64, 96))
    assert logits.shape[-2:] == (8, 12)
    torch.testing.assert_close(logits[..., 3:5, 3:9], torch.full((1, 11, 2, 6), 111.0))


def test_segnet_mirrors_its_encoder():
    with torch.device("meta"):
        network = SegNet(build_encoder((VGG,), "vgg16_bn"), 11)
    convolutions = [m for m in network.decoder.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64]
    assert (network.classifier.in_channels, network.classifier.out_channels) == (64, 11)
    kinds = [isinstance(m, nn.MaxUnpool2d) for m in network.decoder]
    assert [i for i, is_unpooling in enumerate(kinds) if is_unpooling] == [0, 4, 8, 12, 15]


def test_aspp_looks_where_its_rates_say():
    pyramid = ASPP(1, 1, None)
    for branch in pyramid.branches:
        nn.init.ones_(branch.weight)
        nn.init.zeros_(branch.bias)
    spot = torch.zeros(1, 1, 49, 49)
    spot[..., 24, 24] = 1
    seen = pyramid(spot)[0, 0]
    expected = torch.zeros(49, 49)
    for rate in RATES:
        expected[24 - rate : 25 + rate : rate, 24 - rate : 25 + rate : rate] += 1
    assert RATES == (6, 12, 18, 24)
    torch.testing.assert_close(seen, expected)


def test_dilatednet_starts_by_handing_on_what_its_front_end_says():
    network = _seeded("dilatednet(encoder='vgg11', width=0.125, levels=10)").eval().module
    scores = torch.randn(1, 11, 6, 9)
    torch.testing.assert_close(network.context(scores), scores.relu())


def test_the_context_module_looks_as_far_as_the_paper_says():
    # Yu and Koltun 2016, Table 1: 67 x 67 after seven layers, and 2 * (32 + 64) more with Cityscapes' two.
    for levels, reach in ((8, 67), (10, 67 + 2 * (32 + 64))):
        network = _seeded(f"dilatednet(encoder='vgg11', width=0.125, levels={levels})").module
        for layer in network.context:
            if isinstance(layer, nn.Conv2d):
                nn.init.ones_(layer.weight)
        spot = torch.zeros(1, 11, 301, 1)
        spot[:, :, 150] = 1e-9
        column = network.context(spot.expand(1, 11, 301, 301))[0, 0, :, 150]
        assert int((column > 0).sum()) == reach


def test_pyramid_pooling_averages_over_grids():
    pyramid = PyramidPooling(4).eval()
    for reduction in pyramid.reductions:
        nn.init.ones_(reduction[0].weight)
    x = torch.rand(1, 4, 6, 6)
    with torch.no_grad():
        found = pyramid(x)[0]
    assert torch.equal(found[:4], x[0])
    total = x[0].sum(0)
    torch.testing.assert_close(found[4], total.mean().expand(6, 6), rtol=1e-4, atol=0)
    torch.testing.assert_close(found[7], total, rtol=1e-4, atol=0)  # six cells along six pixels
    halves = total.view(2, 3, 2, 3).mean((1, 3))
    expected = F.interpolate(halves[None, None], (6, 6), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(found[5], expected, rtol=1e-4, atol=0)


def test_icnet_fuses_three_sizes():
    network = _seeded("icnet(encoder='resnet18', width=0.125)").eval().module
    seen = {}
    for name, layer in (
        ("high", network.high),
        ("middle", network.encoder.layer2[0]),
        ("low", network.encoder.layer4),
        ("fused", network.fuse_middle),
        ("logits", network.classifier),
    ):
        layer.register_forward_hook(lambda _layer, _inputs, x, name=name: seen.update({name: tuple(x.shape[-2:])}))
    network(torch.rand(1, 3, 64, 96))
    assert seen == {"high": (8, 12), "middle": (4, 6), "low": (2, 3), "fused": (4, 6), "logits": (16, 24)}


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0, 2.0])
def test_the_capacity_row_of_erfnet_builds(width):
    with torch.device("meta"):
        sizes = sum(p.numel() for p in build("network", f"erfnet(width={width})").parameters())
    assert sizes == pytest.approx(2.06e6 * width**2, rel=0.1)


def test_levels_that_the_paper_does_not_have_are_refused():
    with pytest.raises(SpecError, match="expected 8 or 10 levels of the context module, got 9; try 8"):
        build("network", "dilatednet(levels=9)")
