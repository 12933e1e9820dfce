"""ERFNet and ENet are rows of layers: any size in, the same size out, and what each layer gives has a name."""

import pytest
import torch

from robustseg.core.registry import build
from robustseg.networks.enet import ENet
from robustseg.networks.erfnet import ERFNet
from robustseg.networks.layered import LayeredNetwork


@pytest.mark.parametrize("network", [ERFNet(width=0.25), ENet(classes="camvid")], ids=["erfnet", "enet"])
def test_logits_are_those_of_the_padded_image_cropped(network: LayeredNetwork) -> None:
    images = torch.rand(2, 3, 13, 21)
    padded = torch.nn.functional.pad(images, (0, 3, 0, 3), mode="replicate")
    with torch.no_grad():
        network.eval()
        assert torch.equal(network(images), network(padded)[..., :13, :21])
        features = network.features(images)
    assert "stage1.0" in features
    assert "classifier" not in features
    names = [n for n, _ in network.named_children() if n != "classifier"]
    assert list(dict.fromkeys(n.partition(".")[0] for n in features)) == names


def test_the_architecture_keeps_an_own_dropout() -> None:
    network = ERFNet(width=0.25, dropout=(0.0, 0.1))
    assert network.architecture == "erfnet(classes='camvid', width=0.25, dropout=(0.0, 0.1))"
    assert build("network", network.architecture).stage2[0].dropout.p == 0.1
    assert ERFNet(width=0.25).architecture == "erfnet(classes='camvid', width=0.25)"
