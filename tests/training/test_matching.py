"""Layers by name and group, distances and losses in closed form, each image by itself."""

import math

import pytest
import torch

from robustseg.core.errors import SpecError
from robustseg.core.types import Network
from robustseg.networks.enet import ENet
from robustseg.networks.erfnet import ERFNet
from robustseg.testing import PixelNetwork
from robustseg.training.matching import (
    Watched,
    feature_distances,
    features_of,
    inverse_feature_matching,
    layers_of,
    soft_cross_entropy,
)

STUDENT = ERFNet(width=0.25).eval()


class Foreign(Network):
    """Has features, and is no row of layers."""

    def __init__(self):
        super().__init__(STUDENT.label_space)

    def forward(self, images):
        return images.repeat(1, 4, 1, 1)[:, :11]

    def features(self, images):
        return {"early": images * 2, "late": images * 3}


def test_groups_are_those_of_the_paper():
    assert layers_of(STUDENT, ("down",)) == ("down1", "down2", "down3")
    assert layers_of(STUDENT, ("up", "down2")) == ("down2", "up1", "up2")
    rest = layers_of(STUDENT, ("rest",))
    assert len(rest) == 5 + 8 + 2 + 2
    assert set(rest) | set(layers_of(STUDENT, ("down", "up"))) == set(layers_of(STUDENT, ("all",)))
    assert layers_of(STUDENT, ("stage3", "stage1.4", "stage3.0")) == ("stage1.4", "stage3.0", "stage3.1")
    assert layers_of(ENet(classes="camvid"), ("up",)) == ("up4", "up5")
    assert layers_of(Foreign(), ("late",)) == ("late",)


def test_layers_that_are_not_there_are_named():
    for wrong in (("down4",), ("down2", "stage"), ("classifier",), ("down1.",)):
        with pytest.raises(
            SpecError, match=r"expected layers of 'erfnet.*; try all, down, up, rest, or down1, down2, stage1.0"
        ):
            layers_of(STUDENT, wrong)
    with pytest.raises(SpecError, match="expected at least one layer"):
        layers_of(STUDENT, ())
    with pytest.raises(SpecError, match=r"expected layers of .* got 'down'"):
        layers_of(Foreign(), ("down",))
    with pytest.raises(SpecError, match="expected a student with named features"):
        layers_of(PixelNetwork(), ("all",))


@pytest.mark.parametrize(
    "network", [STUDENT, ENet(classes="camvid").eval(), Foreign()], ids=["erfnet", "enet", "foreign"]
)
def test_one_pass_gives_what_two_give(network):
    images = torch.rand(2, 3, 13, 21)
    names = tuple(network.features(images))[:2]
    with torch.no_grad():
        logits, found = Watched(network, names)(images)
        assert torch.equal(logits, network(images))
        whole = network.features(images)
        for features in (found, features_of(network, images, names)):
            assert list(features) == list(names)
            assert all(torch.equal(features[n], whole[n]) for n in names)


def test_early_layers_cost_no_later_ones():
    class Counted(ERFNet):
        calls = 0

        def _through(self, block, x, memory):
            self.calls += 1
            return super()._through(block, x, memory)

    counted = Counted(width=0.25).eval()
    features_of(counted, torch.rand(1, 3, 16, 16), ("down2",))
    assert counted.calls == 2


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_distances_by_hand_and_dead_at_the_start(p):
    static = {"a": torch.randn(2, 3, 4, 5), "b": torch.randn(2, 1, 2, 2)}
    apart = {name: (f + 0.5).requires_grad_() for name, f in static.items()}
    distance, size = feature_distances(apart, static, p=p)
    assert distance.shape == size.shape == (2, 2)
    for row, elements in ((0, 60), (1, 4)):
        torch.testing.assert_close(distance[row], torch.full((2,), 0.5 * elements ** (1 / p) / elements))
    wanted = (static["a"][1].abs() ** p).sum() ** (1 / p) / 60
    torch.testing.assert_close(size[0, 1], wanted)
    same = {name: f.clone().requires_grad_() for name, f in static.items()}
    inverse_feature_matching(feature_distances(same, static, p=p).distance).sum().backward()
    assert all(f.grad is not None and not f.grad.any() for f in same.values())  # exactly zero, and no NaN


def test_the_feature_term_by_hand():
    distances = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    assert inverse_feature_matching(distances).tolist() == [2.0, 0.5]
    assert inverse_feature_matching(distances, beta=1, gamma=2).tolist() == [1.0, pytest.approx(1 / 2.5**2)]


def test_soft_cross_entropy_by_hand():
    logits, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 4, 3, 4)
    y = teacher[:, :3].softmax(1)
    wanted = -(y * logits.log_softmax(1)[:, :3]).sum(1).mean((1, 2))
    torch.testing.assert_close(soft_cross_entropy(logits, teacher, classes=3), wanted)
    agreed = soft_cross_entropy(teacher[:, :3], teacher, classes=3)
    entropy = -(y * y.log()).sum(1).mean((1, 2))
    torch.testing.assert_close(agreed, entropy)  # its least value
    assert soft_cross_entropy(torch.zeros(1, 11, 2, 2), torch.randn(1, 11, 2, 2), classes=11).item() == pytest.approx(
        math.log(11)
    )
