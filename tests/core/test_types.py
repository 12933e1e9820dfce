"""Samples, batches, frozen networks, predictions, and the checks on shapes."""

import pytest
import torch
from jaxtyping import TypeCheckError

from robustseg.core import types
from robustseg.core.errors import ShapeError
from robustseg.core.labels import IGNORE
from robustseg.core.types import Batch, Sample, device_of, dtype_of, frozen, most_likely, require_pair, unchanged

SHAPE = (3, 5, 7)
LIKE = torch.zeros(4, *SHAPE)


def test_device_and_dtype_are_those_of_the_parameters(pixel_network):
    assert (device_of(pixel_network), dtype_of(pixel_network)) == (torch.device("cpu"), torch.float64)
    assert (device_of(torch.nn.Identity()), dtype_of(torch.nn.Identity())) == (torch.device("cpu"), torch.float32)
    assert device_of(torch.nn.Linear(1, 1, device="meta")).type == "meta"


def test_frozen_restores_every_mode_and_flag_also_after_an_error(small_network):
    small_network.train()
    small_network.layers[1].eval()
    small_network.layers[0].weight.requires_grad_(False)

    def state():
        return [m.training for m in small_network.modules()], [p.requires_grad for p in small_network.parameters()]

    def fail():
        assert not any(m.training for m in small_network.modules())
        assert not any(p.requires_grad for p in small_network.parameters())
        raise RuntimeError("inside")

    before = state()
    with pytest.raises(RuntimeError, match="inside"), frozen(small_network):
        fail()
    assert state() == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_buffers_are_restored_also_after_an_error(small_network, mode):
    class Moves(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("written", torch.zeros(3))
            self.register_buffer("replaced", torch.zeros(3))
            self.register_buffer("later", None)

        def forward(self, images):
            self.written += 1
            self.replaced, self.later = self.replaced + 1, torch.ones(1)
            raise RuntimeError("inside")

    network = torch.nn.Sequential(small_network.train(), Moves())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kept = dict(network.named_buffers())
    with pytest.raises(RuntimeError, match="inside"), unchanged(network), mode():
        network(torch.rand(2, 3, 8, 8, dtype=torch.float64))
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(value is kept[name] for name, value in network.named_buffers())


def test_pairs_of_images_and_labels():
    labels = torch.zeros(4, *SHAPE[1:], dtype=torch.int64)
    require_pair(LIKE, labels)
    for images, other in [(LIKE, labels.int()), (LIKE, labels[:3]), (LIKE.int(), labels), (LIKE[:, :2], labels)]:
        with pytest.raises(ShapeError, match="expected"):
            require_pair(images, other)


def test_a_batch_keeps_the_extras_that_all_samples_have():
    image, labels = torch.rand(3, 2, 2), torch.zeros(2, 2, dtype=torch.int64)
    batch = Batch.of(
        [
            Sample(image, labels, "a", {"depth": labels.float(), "moving": labels > 0}),
            Sample(image, labels, "b", {"depth": labels.float()}),
        ]
    )
    assert batch.ids == ("a", "b")
    assert set(batch.extras) == {"depth"}
    assert batch.images.shape == (2, 3, 2, 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [1, 2, 19, 255, 300])
def test_the_most_likely_class_is_the_argmax_and_of_equals_the_first(classes, dtype, memory_format, monkeypatch):
    monkeypatch.setattr(types, "band_rows", lambda logits: 2)
    logits = torch.randn(2, classes, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[:, :, 0] = logits[:, :, 0].round()  # many equals
    logits[0, :, 2] = 0
    logits = logits.contiguous(memory_format=memory_format)
    expected = logits.argmax(1)
    assert torch.equal(most_likely(logits), expected)
    for at, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        logits[1, at % classes, 4, at] = value
        expected[1, 4, at] = IGNORE
    assert torch.equal(most_likely(logits), expected), "NaN or infinity is no prediction"
    assert most_likely(logits[:0]).shape == (0, 5, 6)


def test_shapes_are_checked_while_the_tests_run() -> None:
    """`conftest` installs the import hook; without it a wrong shape would pass unseen."""
    with pytest.raises(TypeCheckError):
        most_likely(torch.zeros(3))
