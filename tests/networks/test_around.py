"""Networks made of networks: what the spec says, and copies with a change."""

from pathlib import Path

import pytest
import torch

from robustseg.core.errors import LabelSpaceMismatch, SpecError
from robustseg.core.random import ImageRng
from robustseg.core.types import Network
from robustseg.monitor.edges import EdgeMonitor
from robustseg.networks.crf import MeanFieldCRF
from robustseg.networks.fast import fast
from robustseg.networks.fronts import BitDepth, GaussianBlur, Jpeg, Median, ResizeAndPad
from robustseg.networks.multiscale import MultiScale
from robustseg.testing import SmallNetwork, gray_space

WRAPPERS = {
    "jpeg": lambda network: Jpeg(network, quality=50, gradient="straight_through"),
    "bit_depth": lambda network: BitDepth(network, bits=3),
    "gaussian_blur": lambda network: GaussianBlur(network, sigma=0.5),
    "median": lambda network: Median(network, side=5),
    "resize_and_pad": lambda network: ResizeAndPad(network, grow=0.3),
    "multiscale": lambda network: MultiScale(network, scales=(0.5, 1.0), fusion="mean"),
    "crf": lambda network: MeanFieldCRF(network, iterations=2, senders=64),
}
IMAGES = torch.rand((2, 3, 16, 24), dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_around_another_network_keeps_its_settings_and_its_own_weights(name):
    one, other = SmallNetwork(seed=1), SmallNetwork(seed=2)
    other.spec, other.files = "other", (Path("other.safetensors"),)
    wrapper = WRAPPERS[name](one).eval()
    for parameter in (p for n, p in wrapper.named_parameters() if not n.startswith("network.")):
        parameter.data += 0.5  # as a training would leave it
    copied = wrapper.with_(network=other)
    assert wrapper.network is one
    assert copied.spec == wrapper.spec.replace(one.spec, "other", 1) != wrapper.spec
    assert copied.settings == wrapper.settings
    assert copied.files == other.files
    assert not copied.training
    assert torch.equal(copied.with_(network=one)(IMAGES), wrapper(IMAGES))
    with pytest.raises(LabelSpaceMismatch):
        wrapper.with_(network=SmallNetwork(5))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_given_name_stays_unless_what_it_names_changes(name):
    wrapper = WRAPPERS[name](SmallNetwork()).eval()
    wrapper.spec, wrapper.files = "mine", (Path("mine.safetensors"),)
    for copied in (wrapper.soft(), wrapper.draw(ImageRng(0, ("a", "b"))), fast(wrapper)):
        assert (copied.spec, copied.files, copied.settings) == ("mine", wrapper.files, wrapper.settings)
        assert type(copied) is type(wrapper)
    assert wrapper.with_(network=wrapper.network) is wrapper
    with pytest.raises(SpecError, match="got 'strength'"):
        wrapper.with_(strength=1)


def test_a_changed_setting_is_in_the_spec():
    blur = GaussianBlur(SmallNetwork(), sigma=1.0)
    sharper = blur.with_(sigma=0.5)
    assert sharper.spec == GaussianBlur(SmallNetwork(), sigma=0.5).spec != blur.spec
    assert torch.equal(sharper(IMAGES), GaussianBlur(blur.network, sigma=0.5)(IMAGES))


class Far(Network):
    """Two classes, and a depth beside them."""

    def __init__(self):
        super().__init__(gray_space(2), "far")
        self.layer = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images):
        return self.layer(images)

    def depth(self, images):
        return 1 + images.mean(1)


def test_a_fast_network_still_sees_depth_and_its_monitor_still_watches():
    monitor = EdgeMonitor(Far(), thresholds=(0.1, 0.2, 0.3), rate=0.1, condition="mine").eval()
    images = IMAGES.float()
    with torch.no_grad():
        copied, slow = fast(monitor), monitor.watch(images)
        assert not isinstance(copied.network, Far)
        torch.testing.assert_close(copied.watch(images).scores, slow.scores)
    changed = monitor.with_(rate=0.2)
    assert (changed.thresholds, changed.condition, changed.rate) == ((0.1, 0.2, 0.3), "mine", 0.2)
    assert changed.spec == monitor.spec.replace("rate=0.1", "rate=0.2")
