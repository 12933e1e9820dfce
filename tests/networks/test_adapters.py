"""Adapters: what any module gives becomes logits at the size of the images, and the form of its input is found out."""

import json
import math
import sys
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustseg.core.errors import LabelSpaceMismatch, MissingExtra, RobustsegError, ShapeError, SpecError
from robustseg.core.registry import build
from robustseg.core.spaces import CAMVID, CITYSCAPES, classes_text, label_space
from robustseg.core.types import Sample
from robustseg.datasets.views import resize_image
from robustseg.networks.adapters import IMAGENET_MEAN, IMAGENET_STD, Input, adapt, check_against, guess_input, logits_of

COLOURS = label_space(("red", "green", "blue"))


class Quarter(nn.Module):
    """A pixel classifier whose logits have a quarter of the size."""

    def __init__(self, classes=3):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 4, stride=4)

    def forward(self, x):
        return self.layer(x)


class Giving(nn.Module):
    """A module that wraps its logits in something."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x * 2)


class Brightest(nn.Module):
    """Gives each pixel the colour that is largest, if it gets RGB normalised by `mean` and `std` in its own form."""

    def __init__(self, bgr=False, scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)):
        super().__init__()
        self.bgr, self.scale, self.mean, self.std = bgr, scale, mean, std

    def forward(self, x):
        seen = (x * x.new_tensor(self.std).view(3, 1, 1) + x.new_tensor(self.mean).view(3, 1, 1)) / self.scale
        seen = seen.flip(1) if self.bgr else seen
        # Logits with a place: far outside [0, 1] this is no longer the largest colour.
        target = seen.new_tensor([[0.8, 0.3, 0.5], [0.4, 0.6, 0.3], [0.2, 0.5, 0.9]])
        return -((seen.unsqueeze(1) - target.view(1, 3, 3, 1, 1)) ** 2).sum(2)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: y,
        lambda y: {"out": y, "aux": y * 0},
        lambda y: OrderedDict(logits=y),
        lambda y: (y, y * 0),
        lambda y: [y],
        lambda y: SimpleNamespace(logits=y),
    ],
)
def test_every_usual_output_is_understood(wrap):
    images = torch.rand(2, 3, 6, 7)
    assert torch.equal(adapt(Giving(wrap), label_space=COLOURS)(images), images * 2)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda y: {"seg": y}, "got a dict with 'seg'; try output='KEY'"),
        (lambda y: y.argmax(1), r"got a torch.int64 tensor \(1, 4, 4\)"),
        (lambda y: SimpleNamespace(masks=y), "got a SimpleNamespace"),
        (lambda y: (y.mean(),), r"got a tuple of 1 \(a torch.float32 tensor \(\)"),
        (lambda y: None, "got a NoneType"),
    ],
)
def test_other_outputs_are_refused_in_one_sentence(wrap, said):
    with pytest.raises(RobustsegError, match=said):
        adapt(Giving(wrap), label_space=COLOURS)(torch.rand(1, 3, 4, 4))


def test_the_place_of_the_logits_can_be_named():
    output = {"seg": torch.rand(1, 3, 4, 4), "aux": torch.rand(1, 3, 4, 4)}
    assert logits_of(output, key="seg") is output["seg"]
    with pytest.raises(RobustsegError, match="expected an output 'out', got a dict with 'seg', 'aux'"):
        logits_of(output, key="out")


def test_small_logits_are_resized_without_aligned_corners():
    module, images = Quarter(), torch.rand(2, 3, 16, 24)
    wanted = F.interpolate(module(images), (16, 24), mode="bilinear", align_corners=False)
    assert torch.equal(adapt(module, label_space=COLOURS)(images), wanted)


def test_padding_and_fixed_sizes_come_back_to_the_size_of_the_images():
    module, images = Quarter(), torch.rand(1, 3, 13, 18)
    padded = adapt(module, label_space=COLOURS, divisor=8)
    assert padded.prepare(images).shape == (1, 3, 16, 24)
    assert torch.equal(padded.prepare(images)[..., 13:, :18], images[..., 12:, :].expand(1, 3, 3, 18))
    assert padded(images).shape == (1, 3, 13, 18)
    assert torch.allclose(
        padded(images)[..., :8, :12], adapt(module, label_space=COLOURS)(images[..., :12, :16])[..., :8, :12]
    )
    fixed = adapt(module, label_space=COLOURS, input_size=(32, 32))
    assert fixed.prepare(images).shape == (1, 3, 32, 32)
    assert fixed(images).shape == (1, 3, 13, 18)


def test_colour_order_comes_before_range_mean_and_std():
    image = torch.tensor([0.25, 0.5, 1.0]).view(1, 3, 1, 1)
    network = adapt(nn.Identity(), label_space=COLOURS, bgr=True, scale=255, mean=(100, 50, 25), std=(2, 4, 8))
    assert network.prepare(image).flatten().tolist() == pytest.approx([155 / 2, 77.5 / 4, 38.75 / 8])
    assert network.spec == "adapt(mean=(100, 50, 25), std=(2, 4, 8), bgr=True, scale=255)"


def test_gradients_reach_the_images_in_any_form():
    images = torch.rand(1, 3, 9, 9, requires_grad=True)
    network = adapt(Quarter(), label_space=COLOURS, bgr=True, mean=IMAGENET_MEAN, std=IMAGENET_STD, divisor=8)
    network(images).square().sum().backward()
    assert (images.grad.abs().sum((0, 1)) > 0).all()


def test_number_of_outputs_must_be_that_of_the_classes():
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(
        LabelSpaceMismatch, match=r"\[1, 3, h, w\] for 3 classes and 0 other outputs, got \(1, 4, 2, 2\)"
    ):
        adapt(Quarter(4), label_space=COLOURS)(images)
    assert adapt(Quarter(4), label_space=COLOURS, others=1)(images).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    "wrong", [{"mean": (1, 2)}, {"std": (0, 1, 1)}, {"scale": 0}, {"divisor": 0}, {"input_size": (3,)}]
)
def test_arguments_without_sense_are_refused(wrong):
    with pytest.raises(SpecError, match=r"expected .*; try|expected divisor"):
        adapt(nn.Identity(), label_space=COLOURS, **wrong)


def test_features_are_named_by_the_children():
    module = nn.Sequential(OrderedDict(one=nn.Conv2d(3, 5, 3), two=nn.Conv2d(5, 3, 1)))
    features = adapt(module, label_space=COLOURS).features(torch.rand(1, 3, 8, 8))
    assert {n: tuple(x.shape) for n, x in features.items()} == {"one": (1, 5, 6, 6), "two": (1, 3, 6, 6)}
    assert not module.one._forward_hooks


def test_the_reference_must_agree():
    module, images = Brightest(bgr=True), torch.rand(2, 3, 10, 10)

    def pipeline(image):
        assert image.dtype == np.uint8
        blue_first = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
        return module(blue_first)[0].argmax(0).numpy()

    right = adapt(module, label_space=COLOURS, bgr=True, reference=pipeline, images=images)
    assert check_against(right, pipeline, images) == 1.0
    with pytest.raises(RobustsegError, match=r"same label as the reference on 99.9% of pixels, got \d+.\d%; try bgr"):
        adapt(module, label_space=COLOURS, reference=pipeline, images=images)
    broken = adapt(torch.nn.Sequential(module, torch.nn.Threshold(2.0, torch.nan)), label_space=COLOURS)
    with pytest.raises(RobustsegError, match=r"got 0.0%"):  # NaN agrees with nothing, not even with a void label
        check_against(broken, lambda image: np.full(image.shape[:2], 255), images)
    with pytest.raises(RobustsegError, match="both or neither"):
        adapt(module, label_space=COLOURS, reference=pipeline)
    with pytest.raises(ShapeError, match=r"label maps \(10, 10\) from the reference, got \(5, 5\)"):
        check_against(right, lambda image: np.zeros((5, 5)), images)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Brightest(), "RGB in [0, 1]"),
        (Brightest(bgr=True), "BGR in [0, 1]"),
        (Brightest(mean=IMAGENET_MEAN, std=IMAGENET_STD), "RGB with ImageNet mean and std"),
        (Brightest(bgr=True, mean=IMAGENET_MEAN[::-1], std=IMAGENET_STD[::-1]), "BGR with ImageNet mean and std"),
        (Brightest(scale=255.0), "RGB in 0..255"),
        (Brightest(mean=(0.5,) * 3, std=(0.5,) * 3), "RGB in [-1, 1]"),
        (Brightest(bgr=True, scale=255.0, mean=(103.53, 116.28, 123.675)), "BGR in 0..255 less ImageNet mean"),
    ],
)
def test_the_form_of_the_input_is_found_by_labels(module, name):
    images = torch.rand(2, 3, 24, 24)
    labels = Brightest()(images).argmax(1)
    samples = [Sample(x, y, f"a_{i}") for i, (x, y) in enumerate(zip(images, labels, strict=True))]
    guesses = guess_input(adapt(module, label_space=COLOURS), samples)
    assert guesses[0].name == name
    assert guesses[0].miou > 0.99 > guesses[1].miou
    assert len({g.name for g in guesses}) == 10
    again = adapt(
        module, label_space=COLOURS, **{f: getattr(guesses[0].expects, f) for f in ("mean", "std", "bgr", "scale")}
    )
    assert (again.predict(images) == labels).float().mean() > 0.99


def test_guessing_follows_device_and_dtype_of_the_module():
    module = nn.Conv2d(3, 3, 1).double()
    sample = Sample(torch.rand(3, 8, 8), torch.zeros(8, 8, dtype=torch.int64), "a_0")
    assert len(guess_input(adapt(module, label_space=COLOURS), [sample])) == 10
    asked = adapt(module.to("meta"), label_space=COLOURS)
    with pytest.raises(NotImplementedError, match="meta"):  # the images were there; nothing comes back from meta
        guess_input(asked, [sample])


def test_guessing_needs_samples():
    with pytest.raises(RobustsegError, match="expected labelled samples, got none"):
        guess_input(adapt(nn.Identity(), label_space=COLOURS), [])


def test_a_users_own_module_by_spec(tmp_path, monkeypatch):
    (tmp_path / "own_net_for_test.py").write_text(
        "from torch import nn\n\n\ndef build_it():\n    return nn.Conv2d(3, 11, 1)\n\n\nnumber = 3\n\n\ndef none():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Conv2d(3, 11, 1).state_dict(), tmp_path / "own.pth")
    before = list(sys.path)
    network = build(
        "network", "module('own_net_for_test:build_it', classes='camvid', mean=(1/2, 0.5, 0.5), weights='own.pth')"
    )
    assert network(torch.rand(1, 3, 5, 5)).shape == (1, 11, 5, 5)
    assert [file.name for file in network.files] == ["own_net_for_test.py", "own.pth"]
    assert network.architecture == "module('own_net_for_test:build_it', classes='camvid', mean=(0.5, 0.5, 0.5))"
    assert sys.path == before
    for source, said in [
        ("own_net_for_test", "expected 'package.module:function'"),
        (
            "own_net_that_is_not:build",
            "expected a module 'own_net_that_is_not' that Python can import, got ModuleNotFoundError: No module",
        ),
        ("own_net_for_test:buildit", "expected a function 'buildit' in 'own_net_for_test', got none; try build_it"),
        ("own_net_for_test:none", "expected an nn.Module from 'own_net_for_test:none', got a int"),
    ]:
        with pytest.raises(SpecError, match=said):
            build("network", f"module('{source}', classes='camvid')")


def test_label_spaces_by_name_names_and_number():
    assert label_space("cityscapes") is CITYSCAPES
    assert label_space(CAMVID) is CAMVID
    assert label_space(CAMVID.names) is CAMVID
    assert label_space(3).names == ("class 0", "class 1", "class 2")
    assert len(set(label_space(40).palette)) == 40
    assert classes_text(CAMVID) == "'camvid'"
    assert label_space(("road", "car")).names == ("road", "car")
    assert classes_text(label_space(("road", "car"))) == "('road', 'car')"
    with pytest.raises(SpecError, match="got 'CamVit'; try camvid"):
        label_space("CamVit")


def test_defaults_have_no_text():
    assert Input().text == ""


@pytest.mark.parametrize("name", ["Unet", "deeplabv3plus", "FPN", "PSPNet"])
def test_smp_by_name(name):
    pytest.importorskip("segmentation_models_pytorch")
    network = build("network", f"smp('{name}', encoder='resnet18', classes='camvid')").eval()
    assert network(torch.rand(1, 3, 45, 60)).shape == (1, 11, 45, 60)
    assert network.prepare(torch.rand(1, 3, 45, 60)).shape == (1, 3, 64, 64)


@pytest.mark.slow
def test_every_architecture_of_smp():
    package = pytest.importorskip("segmentation_models_pytorch")
    for cls in package.MODEL_ARCHITECTURES_MAPPING.values():
        encoder, size = ("tu-vit_tiny_patch16_224", 224) if cls.__name__ == "DPT" else ("resnet18", 135)
        more = ", dynamic_img_size=True" if cls.__name__ == "DPT" else ""
        network = build("network", f"smp('{cls.__name__}', encoder='{encoder}'{more})").eval()
        with torch.no_grad():
            assert network(torch.rand(1, 3, size, size)).shape == (1, 11, size, size), cls.__name__


def test_smp_names_what_is_near(monkeypatch):
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(SpecError, match="got 'DeepLabV3Pluss'; try DeepLabV3Plus"):
        build("network", "smp('DeepLabV3Pluss')")
    with pytest.raises(SpecError, match="got 'resnet19'; try resnet1"):
        build("network", "smp('Unet', encoder='resnet19')")
    with pytest.raises(SpecError, match="expected an option of Unet, got 'decoder_chanels'; try decoder_channels"):
        build("network", "smp('Unet', decoder_chanels=(1, 2))")
    with pytest.raises(SpecError, match="expected an option of Unet, got 'activation'"):
        build("network", "smp('Unet', activation='softmax')")
    with pytest.raises(SpecError, match=r"expected arguments of FPN with 'resnet18', got: .*merge_policy"):
        build("network", "smp('FPN', decoder_merge_policy='x')")
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'robustseg\[smp\]'"):
        build("network", "smp('Unet')")


def test_torchvision_by_name():
    network = build("network", "torchvision('lraspp_mobilenet_v3_large', classes='cityscapes')").eval()
    assert network(torch.rand(1, 3, 50, 70)).shape == (1, 19, 50, 70)
    assert "backbone.high" in network.features(torch.rand(1, 3, 64, 64))
    with pytest.raises(SpecError, match="got 'deeplabv3_resnet5'; try deeplabv3_resnet50"):
        build("network", "torchvision('deeplabv3_resnet5', classes='camvid')")
    with pytest.raises(SpecError, match="try classes='camvid'"):
        build("network", "torchvision('fcn_resnet50')")


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """A tiny SegFormer with random weights in a folder, as `save_pretrained` writes it."""
    package = pytest.importorskip("transformers")
    config = package.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=16,
        id2label={0: "road", 1: "driver's car", 2: "sky"},
    )
    folder = tmp_path_factory.mktemp("segformer")
    model = package.SegformerForSemanticSegmentation(config).eval()
    model.save_pretrained(folder)
    return folder, model


def test_segformer_from_a_folder(segformer):
    folder, model = segformer
    network = build("network", f"transformers('{folder}')")
    images = torch.rand(1, 3, 64, 96)
    assert network.label_space.names == ("road", "driver's car", "sky")
    assert {file.name for file in network.files} == {"config.json", "model.safetensors"}
    normalised = (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.no_grad():
        wanted = F.interpolate(model(normalised).logits, (64, 96), mode="bilinear", align_corners=False)
        assert torch.allclose(network(images), wanted, atol=1e-5)
        assert network(torch.rand(1, 3, 37, 51)).shape == (1, 3, 37, 51)


def test_transformers_take_the_normalisation_of_the_model(segformer, tmp_path):
    folder, model = segformer
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1.0]}')
    assert build("network", f"transformers('{tmp_path}')").expects.std == (0.25, 0.5, 1.0)
    assert build("network", f"transformers('{folder}', std=(1, 1, 1))").expects.std == (1, 1, 1)


def test_transformers_do_what_the_processor_of_the_model_does(segformer, tmp_path):
    _, model = segformer
    model.save_pretrained(tmp_path)
    half, processor = (
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        tmp_path / "preprocessor_config.json",
    )

    def expects(**settings):
        processor.write_text(json.dumps(settings))
        return build("network", f"transformers('{tmp_path}')").expects

    assert expects(do_normalize=True, do_rescale=True, **half) == Input(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    assert expects(do_normalize=True, do_rescale=False, **half).scale == 255
    assert expects(rescale_factor=1 / 127.5, **half).scale == 2
    flipped = expects(do_flip_channel_order=True, **half)
    assert (flipped.bgr, flipped.mean, flipped.std) == (True, (0.3, 0.4, 0.5), (0.4, 0.3, 0.2))
    only_flipped = expects(do_resize=True, do_rescale=True, do_flip_channel_order=True)
    assert (only_flipped.bgr, only_flipped.mean, only_flipped.std) == (True, (0, 0, 0), (1, 1, 1))
    network = build("network", f"transformers('{tmp_path}')").eval()
    images = torch.rand(1, 3, 32, 32)
    again = build("network", network.architecture)
    assert again.expects == network.expects
    assert torch.equal(network.prepare(images), images.flip(1))
    assert build("network", f"transformers('{tmp_path}', bgr=False, scale=255)").expects.text.endswith("scale=255")
    with pytest.raises(SpecError, match=r"got do_color_quantize; try module"):
        expects(do_color_quantize=True, **half)
    with pytest.raises(SpecError, match=r"got mean None and std None; try module"):
        expects(do_normalize=True)


def test_transformers_say_what_is_wrong(segformer, tmp_path, monkeypatch):
    folder, _ = segformer
    with pytest.raises(LabelSpaceMismatch, match=r"expected 3 classes for .*, got 11"):
        build("network", f"transformers('{folder}', classes='camvid')")
    with pytest.raises(RobustsegError, match="expected a semantic segmentation network of transformers"):
        build("network", f"transformers('{tmp_path}')")
    with pytest.raises(SpecError, match="both or neither"):
        build("network", "transformers")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'robustseg\[transformers\]'"):
        build("network", f"transformers('{folder}')")


def test_one_rule_resizes_the_images_of_data_sets_and_of_networks():
    image = torch.rand((3, 48, 64), generator=torch.Generator().manual_seed(0))
    seen = adapt(nn.Identity(), label_space=COLOURS, input_size=(12, 16)).prepare(image[None])[0]
    assert torch.equal(seen.clamp(0, 1), resize_image(image, (12, 16)))
    plain = adapt(nn.Identity(), label_space=COLOURS, input_size=(12, 16), antialias=False).prepare(image[None])
    torch.testing.assert_close(plain, F.interpolate(image[None], (12, 16), mode="bilinear", align_corners=False))
    assert not torch.allclose(plain[0], seen, atol=0.05)


def test_every_pixel_of_a_larger_image_has_a_gradient():
    images = torch.ones((1, 3, 32, 40), requires_grad=True)  # white: nothing may be clipped on the way
    adapt(nn.Identity(), label_space=COLOURS, input_size=(8, 8))(images).sum().backward()
    assert (images.grad > 0).all()


@pytest.mark.parametrize("size", [(1, 1), (0, 64), (-8, 64), (10**6, 10**6)])
def test_sizes_that_no_network_can_take_are_refused(size):
    with pytest.raises(SpecError, match=r"expected (a size HxW of at least 8x8|images that fit into|2 numbers)"):
        Input(input_size=size)


@pytest.mark.parametrize(
    "wrong",
    [{"scale": math.nan}, {"scale": math.inf}, {"mean": (0, 0, math.nan)}, {"divisor": 10**9}, {"others": 10**9}],
)
def test_numbers_of_no_input_are_refused(wrong):
    with pytest.raises(SpecError, match="expected"):
        Input(**wrong)
