"""ENet: shapes and names, and the figures of weights that somebody else trained."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from robustseg.core.errors import ShapeError
from robustseg.core.registry import build
from robustseg.core.spaces import CITYSCAPES
from robustseg.datasets import Resized, Spread
from robustseg.evaluation.run import evaluate
from robustseg.networks.adapters import adapt, guess_input
from robustseg.networks.enet import ENet, own_names
from robustseg.results.metrics import miou, pixel_accuracy, q


def test_has_the_size_of_the_paper():
    assert sum(p.numel() for p in ENet(others=1).parameters()) == 351_804


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (8, 9)])
def test_any_size_gives_logits_at_that_size(size):
    network = ENet(classes="camvid").eval()
    images = torch.rand(2, 3, *size)
    logits = network(images)
    assert logits.shape == (2, 11, *size)
    assert torch.allclose(logits[1:], network(images[1:]), atol=1e-5), "images of a batch do not change each other"


def test_features_are_named_by_layer():
    features = ENet().eval().features(torch.rand(1, 3, 64, 96))
    assert {n: tuple(features[n].shape[1:]) for n in ("initial", "down1", "down2", "up4", "up5", "stage5.0")} == {
        "initial": (16, 32, 48),
        "down1": (64, 16, 24),
        "down2": (128, 8, 12),
        "up4": (64, 16, 24),
        "up5": (16, 32, 48),
        "stage5.0": (16, 32, 48),
    }
    assert "stage2.7" in features
    assert "stage3.7" in features
    assert "classifier" not in features


def test_unpooling_puts_values_where_the_encoder_found_them():
    # One bright pixel in each 2x2 window: its place, not the corner of the window, must shine in the decoder.
    pooled, positions = F.max_pool2d(torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]]), 2, return_indices=True)
    assert F.max_unpool2d(pooled, positions, 2)[0, 0].tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_foreign_names_cover_the_network_exactly():
    foreign = {
        "module.initial_block.main_branch.weight": "initial.convolution.weight",
        "module.initial_block.batch_norm.bias": "initial.norm.bias",
        "module.initial_block.out_activation.weight": "initial.activation.weight",
        "module.downsample2_0.ext_conv1.0.weight": "down2.branch.0.0.weight",
        "module.regular1_1.ext_conv3.1.running_var": "stage1.0.branch.2.1.running_var",
        "module.asymmetric2_7.ext_conv2.3.weight": "stage2.6.branch.1.3.weight",
        "module.regular3_0.out_activation.weight": "stage3.0.activation.weight",
        "module.upsample4_0.main_conv1.0.weight": "up4.shortcut.0.weight",
        "module.upsample4_0.ext_tconv1.weight": "up4.branch.1.0.weight",
        "module.upsample5_0.ext_tconv1_bnorm.weight": "up5.branch.1.1.weight",
        "module.upsample5_0.ext_conv2.0.weight": "up5.branch.2.0.weight",
        "module.regular5_1.ext_conv1.0.weight": "stage5.0.branch.0.0.weight",
        "module.transposed_conv.weight": "classifier.weight",
    }
    assert list(own_names(dict.fromkeys(foreign, torch.zeros(1)))) == list(foreign.values())
    assert set(foreign.values()) <= set(ENet().state_dict())


def test_own_weights_come_back_and_wrong_ones_are_refused(tmp_path):
    network = ENet(classes="camvid").eval()
    torch.save(network.state_dict(), tmp_path / "enet.pth")
    again = build("network", f"enet(classes='camvid', weights='{tmp_path}/enet.pth')").eval()
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(network(images), again(images))
    assert again.files == (tmp_path / "enet.pth",)
    assert again.architecture == "enet(classes='camvid', others=0)"
    with pytest.raises(ShapeError, match=r"classifier.weight.*\(16, 19, 3, 3\), got \(16, 11, 3, 3\).*try the classes"):
        ENet(classes="cityscapes", weights=tmp_path / "enet.pth")


@pytest.fixture(scope="module")
def foreign(shared_data: Path):
    """The network nobody here trained, and the eight aachen frames at 512x1024, as a run reads them."""
    folder = shared_data / "cityscapes_sample"
    weights = shared_data / "weights" / "enet_cityscapes_void.pth"
    if not weights.is_file() or not folder.is_dir():
        pytest.skip("needs the ENet weights and the Cityscapes sample")
    data = Resized(build("data", f"cityscapes(root='{folder}', split='train')"), (512, 1024))
    return build("network", f"enet(others=1, weights='{weights}')").eval(), data


@pytest.mark.slow
def test_foreign_weights_give_their_published_figures(foreign):
    counts = evaluate(*foreign).counts
    assert len(counts.ids) == 8
    assert miou(counts) == pytest.approx(0.656, abs=0.01)
    assert pixel_accuracy(counts) == pytest.approx(0.964, abs=0.005)
    assert (counts.confusion.sum(1) > 0).sum() == 16
    assert 0 < counts.confusion[:, -1].sum() < 1e-3 * counts.confusion.sum(), "predicted void is counted as other"


@pytest.mark.slow
def test_labels_tell_how_the_foreign_network_wants_its_images(foreign):
    network, data = foreign
    guesses = guess_input(adapt(network, label_space=CITYSCAPES, others=1, bgr=True), [data[0], data[5]])
    assert guesses[0].name == "RGB in [0, 1]"
    assert guesses[0].expects.text == "others=1"


@pytest.mark.slow
def test_a_few_steps_of_pgd_break_the_foreign_network(foreign):
    network, data = foreign
    two = Spread(data, 2)
    clean = evaluate(network, two)
    attacked = evaluate(network, two, build("perturbation", "pgd(budget='linf:8/255', steps=5, step_size='2/255')"))
    assert miou(clean.counts) > 0.5
    assert q(attacked.counts, clean.counts) < 0.2
    assert max(attacked.scores["linf"]) <= 8 / 255 + 1e-6
