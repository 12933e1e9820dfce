"""VGG and ResNet as stages: torchvision's own tensors, and dilation that computes the same at the coarse places."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.registry import build
from robustseg.networks import encoders
from robustseg.networks.encoders import VGG, ResNet, build_encoder


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {n: t.shape for n, t in module.state_dict().items() if not n.startswith(("fc.", "classifier."))}


@pytest.mark.parametrize("name", [*VGG.names, *ResNet.names])
def test_tensors_have_torchvisions_names_and_shapes(name):
    with torch.device("meta"):
        assert _shapes(build_encoder((VGG, ResNet), name)) == _shapes(models.get_model(name, weights=None))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_gives_torchvisions_maps(name):
    theirs = models.get_model(name, weights=None).eval()
    encoder = build_encoder((VGG, ResNet), name).eval()
    encoder.load_state_dict({n: t for n, t in theirs.state_dict().items() if not n.startswith("fc.")})
    nodes = ["relu", "layer1", "layer2", "layer3", "layer4"]
    images = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        expected = create_feature_extractor(theirs, nodes)(images)
        for ours, node in zip(encoder(images), nodes, strict=True):
            torch.testing.assert_close(ours, expected[node])


def test_a_vgg_gives_what_its_poolings_give():
    encoder = build_encoder((VGG,), "vgg13_bn", width=0.125).eval()
    images = torch.rand(2, 3, 64, 32)
    maps = encoder(images)
    assert [tuple(m.shape) for m in maps] == [
        (2, 8, 32, 16),
        (2, 16, 16, 8),
        (2, 32, 8, 4),
        (2, 64, 4, 2),
        (2, 64, 2, 1),
    ]
    assert [m.shape[1] for m in maps] == encoder.channels
    assert torch.equal(maps[-1], encoder.features(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_dilated_resnet_computes_the_same_at_every_fourth_place(name):
    encoder = build_encoder((VGG, ResNet), name, width=0.125).eval().double()
    images = torch.rand(1, 3, 128, 96, dtype=torch.float64)
    with torch.no_grad():
        coarse = encoder(images)
        encoder.dilate()
        fine = encoder(images)
    assert fine[-1].shape[-2:] == fine[2].shape[-2:] == (16, 12)
    torch.testing.assert_close(fine[3][..., ::2, ::2], coarse[3])
    torch.testing.assert_close(fine[4][..., ::4, ::4], coarse[4])


def test_a_dilated_vgg_keeps_the_size_after_its_third_pooling():
    encoder = build_encoder((VGG,), "vgg11", width=0.125)
    encoder.dilate()
    assert [tuple(m.shape[-2:]) for m in encoder(torch.rand(1, 3, 64, 48))] == [
        (32, 24),
        (16, 12),
        (8, 6),
        (8, 6),
        (8, 6),
    ]
    convolutions = [layer for layer in encoder.features if isinstance(layer, nn.Conv2d)]
    assert [c.dilation[0] for c in convolutions] == [1, 1, 1, 1, 1, 1, 2, 2]


def test_imagenet_weights_are_loaded_only_when_asked(monkeypatch):
    asked = []
    theirs = models.get_model("resnet18", weights=None).state_dict()

    def download(url: str, **options: object) -> dict[str, torch.Tensor]:
        asked.append(url)
        return theirs

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    build_encoder((ResNet,), "resnet18")
    assert not asked
    encoder = build_encoder((ResNet,), "resnet18", weights="imagenet")
    assert "resnet18" in asked[0]
    assert torch.equal(encoder.layer4[1].conv2.weight, theirs["layer4.1.conv2.weight"])


def test_a_download_that_fails_is_said(monkeypatch):
    def offline(url: str, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(
        RobustsegError, match=r"ImageNet weights of resnet18 from .*: no route to host; try encoder_weights"
    ):
        build_encoder((ResNet,), "resnet18", weights="imagenet")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("fcn8s(encoder='resnet19')", "expected an encoder, got 'resnet19'; try resnet1"),
        ("segnet(encoder='resnet18')", "expected an encoder, got 'resnet18'; try vgg11"),
        ("fcn8s(encoder='vgg11', width=0)", "expected a width above 0, at most 16, got 0"),
        ("fcn8s(encoder='vgg11', width=0.1, encoder_weights='imagenet')", "'imagenet' at width 1, got .* at width 0.1"),
        ("fcn8s(encoder='vgg11', encoder_weights='coco')", "expected encoder_weights=None, or 'imagenet'"),
    ],
)
def test_what_cannot_be_built_is_said(spec, said):
    with pytest.raises(SpecError, match=said):
        build("network", spec)


def test_the_width_scales_every_channel():
    assert build_encoder((ResNet,), "resnet50", width=0.5).channels == [32, 128, 256, 512, 1024]
    assert encoders.scaled(64, 0.01) == 4
