"""Memory is judged before an attack step on large images; passes without a gradient are let through."""

import pytest
import torch
from torch import Tensor, nn

from robustseg.core.errors import RobustsegError
from robustseg.evaluation import memory
from robustseg.networks.adapters import adapt
from robustseg.testing import SmallNetwork, gray_space


def test_memory_grows_with_the_batch_and_the_pixels(small_network: SmallNetwork) -> None:
    small, large = torch.rand(1, 3, 512, 512).double(), torch.rand(2, 3, 1024, 512).double()
    judged = memory.attack_memory(small_network, small)
    assert memory.attack_memory(small_network, large) == pytest.approx(4 * judged, rel=0.01)


def test_memory_of_one_layer_is_what_it_keeps() -> None:
    network = SmallNetwork()
    images = torch.rand(1, 3, 512, 512).double()
    kept = memory.attack_memory(network, images) / (memory.IN_FLIGHT * images[:, 0].numel() * images.element_size())
    # the image, and several maps of at least the number of classes for each pixel
    assert 3 + len(network.label_space) <= kept <= 200


def test_a_step_that_does_not_fit_is_refused_with_the_memory_it_needs(
    small_network: SmallNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LARGE", 100_000)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1 << 20)
    images = torch.rand(1, 3, 400, 400).double()
    with memory.memory_checked(small_network):
        small_network(images)  # no gradient is asked for
        small_network(images[..., :100, :100].requires_grad_())  # small
        with pytest.raises(RobustsegError, match=r"GiB of free memory .* 400x400, got 0\.0 GiB; try --batch-size 1"):
            small_network(images.requires_grad_())
    small_network(images)  # not looked at any more


def test_a_device_that_runs_out_of_memory_says_so_in_a_sentence(small_network: SmallNetwork) -> None:
    with pytest.raises(RobustsegError, match=r"got 'CUDA out of memory'; try"), memory.memory_checked(small_network):
        raise torch.OutOfMemoryError("CUDA out of memory\nmore")


class OneSize(nn.Conv2d):
    """A module for one size of images, as an exported one is."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2:] == (1024, 2048), f"need 1024x2048, got {tuple(x.shape)}"
        return super().forward(x)


def test_a_module_of_one_size_is_not_refused_for_a_crop() -> None:
    network = adapt(OneSize(3, 2, 1), label_space=gray_space(2))
    images = torch.zeros(1, 3, 1024, 2048, requires_grad=True)
    with memory.memory_checked(network):
        assert network(images).shape == (1, 2, 1024, 2048)
