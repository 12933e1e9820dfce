"""Two decoders on one encoder: a plain network at test time, and gradients weighed at the split (K3) and nowhere else."""

from pathlib import Path
from urllib.error import URLError

import jaxtyping
import pytest
import torch
from torch import Tensor

from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.registry import build
from robustseg.depth.geometry import FARTHEST
from robustseg.networks import checkpoints, weights
from robustseg.networks.depth import MEAN_DISPARITY, MultiTask, scaled_gradient
from robustseg.networks.fast import _Fast, fast
from robustseg.testing import check_network

OF_TIMM = "mobilenetv3_small_050"
ENCODERS = ("erfnet", "resnet18", OF_TIMM)


def small(encoder: str = "erfnet") -> MultiTask:
    if encoder == OF_TIMM:
        pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return MultiTask(encoder=encoder, width=0.25)


def images(count: int = 2, size: tuple[int, int] = (32, 64)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_it_is_a_network(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_network(small(encoder), sizes=((33, 50),))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # tracing passes proxies for tensors
    assert isinstance(fast(small(encoder)), _Fast)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_labelling_never_runs_the_depth_decoder(encoder: str) -> None:
    network = small(encoder).eval()
    network.module.depth.register_forward_pre_hook(lambda *_: pytest.fail("the depth decoder ran"))
    network(images()), network.predict(images()), network.features(images())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_depth_has_the_size_of_the_images_and_a_fixed_scale(encoder: str) -> None:
    network = small(encoder).eval()
    for size in ((32, 64), (33, 51), (8, 8)):
        depth = network.depth(images(2, size)).detach()
        assert depth.shape == (2, *size)
        assert float(depth.min()) > 0
        assert float(depth.max()) <= FARTHEST * 1.001
    disparity = network.disparity(images())
    assert disparity.shape == (2, 32, 64)
    torch.testing.assert_close(disparity.mean((1, 2)), torch.full((2,), MEAN_DISPARITY))
    torch.testing.assert_close((1 / network.depth(images())).mean((1, 2)), torch.full((2,), 1.009), atol=1e-3, rtol=0)
    before = network.depth(images()).detach()
    network.module.depth.head.bias.data.add_(30)  # however near it takes everything to be
    torch.testing.assert_close(network.depth(images()).detach(), before, atol=1e-4, rtol=1e-3)


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    network = small().eval()
    weights.save(network, tmp_path / "net.safetensors")
    again = build("network", str(tmp_path / "net.safetensors"))
    assert torch.equal(again(images()), network(images()))
    assert torch.equal(again.depth(images()), network.depth(images()))


def test_an_encoder_trained_elsewhere_finds_its_place(tmp_path: Path) -> None:
    for spec in ("erfnet(width=0.25)", "torchvision('fcn_resnet50', classes='camvid')"):
        trained = build("network", spec)
        weights.save(trained, tmp_path / "net.safetensors")
        ours = MultiTask(encoder="erfnet" if "erfnet" in spec else "resnet50", width=0.25)
        checkpoints.start_from(ours, tmp_path / "net.safetensors")
        theirs = trained.state_dict()
        name = "stage2.7.norm2.weight" if "erfnet" in spec else "module.backbone.layer4.2.conv3.weight"
        where = f"module.encoder.{name.removeprefix('module.backbone.')}"
        assert torch.equal(ours.state_dict()[where], theirs[name])


@pytest.mark.parametrize(
    ("encoder", "library"), [("resnet18", "torchvision.models.get_model"), ("efficientnet_lite0", "timm.create_model")]
)
def test_weights_of_imagenet_are_asked_of_the_library_that_has_them(
    encoder: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str, **options: object) -> None:
        assert options["weights" if encoder == "resnet18" else "pretrained"]
        raise URLError("no route")

    pytest.importorskip(library.partition(".")[0])
    monkeypatch.setattr(library, unreachable)
    with pytest.raises(RobustsegError, match=rf"expected the weights of '{encoder}' from a cache or .*no route"):
        build("network", f"multitask(encoder='{encoder}', encoder_weights='imagenet')")


def test_an_encoder_of_timm_begins_with_the_weights_that_timm_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    made, asked = timm.create_model, []

    def at_hand(name: str, *, pretrained: bool, **options: bool) -> torch.nn.Module:
        asked.append(pretrained)
        network: torch.nn.Module = made(name, **options)
        network.load_state_dict({k: torch.full_like(v, 0.5) for k, v in network.state_dict().items()})
        return network

    monkeypatch.setattr("timm.create_model", at_hand)
    network = build("network", "multitask(encoder='mobilenetv3_small_050', encoder_weights='imagenet', width=0.25)")
    assert asked == [True]
    assert all((p == 0.5).all() for p in network.module.encoder.parameters())
    assert not all((p == 0.5).all() for p in network.module.depth.parameters())
    assert "encoder_weights" not in network.architecture  # of the file, which has them itself


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        ("swin_tiny_patch4_window7_224", "expected an encoder for images of any size, got 'swin"),
        ("xcit_nano_12_p8_224", "up to 5 times, got 'xcit_nano_12_p8_224', which makes of 64x64: 8x8, 8x8"),
        ("tf_efficientnet_lite0.nowhere", "expected an encoder of multitask, got 'tf_efficientnet_lite0.nowhere'"),
    ],
)
def test_an_encoder_of_timm_that_does_not_fit_is_told(encoder: str, sentence: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(SpecError, match=sentence):
        build("network", f"multitask(encoder='{encoder}')")


def test_nonsense_is_one_sentence() -> None:
    with pytest.raises(
        SpecError,
        match=r"expected an encoder of multitask, got 'resnet19'; try resnet101, .*, erfnet, or one of timm's",
    ):
        build("network", "multitask(encoder='resnet19')")
    with pytest.raises(SpecError, match=r"expected an encoder of multitask with pretrained weights, got 'erfnet'"):
        build("network", "multitask(encoder='erfnet', encoder_weights='imagenet')")
    with pytest.raises(SpecError, match=r"expected encoder_weights 'imagenet' or None, got 'coco'"):
        build("network", "multitask(encoder_weights='coco')")
    with pytest.raises(SpecError, match=r"expected a width above 0, at most 16, got 0.0"):
        build("network", "multitask(width=0.0)")


def test_the_same_values_and_a_scaled_gradient() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    to_depth, to_labels = torch.randn(2, 3, 4, dtype=torch.float64)
    deep, labelled = scaled_gradient(x, 0.3), scaled_gradient(x, 0.7)
    assert torch.equal(deep, x)
    (gradient,) = torch.autograd.grad((deep * to_depth).sum() + (labelled * to_labels).sum(), x)
    assert torch.equal(gradient, 0.3 * to_depth + 0.7 * to_labels)


def gradients_of(weight: float | None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The logits, the disparity and each tensor's gradient; None: both tasks without any split."""
    network = small().double().train()
    network.module.depth.requires_grad_(True)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Dropout2d):
            layer.p = 0.0
    labelled, frames = images().double().split(1)
    if weight is None:
        features = network.module.encoder(torch.cat([labelled, frames]))
        logits = network.module.segmentation({part: x[:1] for part, x in features.items()})
        disparity = network.module.disparity({part: x[1:] for part, x in features.items()})
    else:
        logits, disparity = network.both(labelled, frames, weight)
    loss = logits.square().mean() + (0 if disparity is None else disparity.square().mean())
    loss.backward()
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return logits, torch.zeros(()) if disparity is None else disparity, found


def test_k3_outputs_are_the_same_for_any_weight_and_only_the_encoder_sees_it() -> None:
    logits, disparity, plain = gradients_of(None)
    found = {weight: gradients_of(weight) for weight in (0.0, 0.25, 0.75, 1.0)}
    for weight, (its_logits, its_disparity, gradients) in found.items():
        assert torch.equal(its_logits, logits)
        assert torch.equal(its_disparity, disparity) or weight == 0
        for name, gradient in gradients.items():
            if "encoder" not in name:
                assert torch.equal(gradient, plain[name]), name
            else:
                alone = [found[w][2][name] for w in (0.0, 1.0)]
                torch.testing.assert_close(gradient, (1 - weight) * alone[0] + weight * alone[1])


def test_weight_zero_leaves_the_depth_decoder_alone_and_frames_in_batch_norm() -> None:
    network = small().train()
    network.module.depth.register_forward_pre_hook(lambda *_: pytest.fail("the depth decoder ran"))
    labelled, frames = images().split(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = network.both(labelled, frames, 0.0).logits
        torch.manual_seed(0)
        others = network.both(labelled, 1 - frames, 0.0).logits
    assert not torch.allclose(logits, others)
    torch.autograd.backward(logits.sum())
    assert all(p.grad is None for p in network.module.depth.parameters())
