"""Edges of image, depth and labels: where they agree nothing is suspicious, and two of three pairs make an alarm."""

import math

import numpy as np
import pytest
import torch

from robustseg.core import registry
from robustseg.core.errors import RobustsegError, SpecError
from robustseg.core.registry import network
from robustseg.core.types import Dataset, Network, Sample
from robustseg.monitor.calibration import suspicions
from robustseg.monitor.edges import PAIRS, EdgeMonitor
from robustseg.testing import PixelNetwork, check_monitor, gray_space


@network("squares")
class Squares(Network):
    """Class 1 and half as far where red is above a half; labels or depth may be shifted to the right."""

    def __init__(self, labels: int = 0, depth: int = 0):
        super().__init__(gray_space(2), f"squares(labels={labels}, depth={depth})")
        self.shift = labels, depth

    def forward(self, images):
        red = images[:, 0].roll(self.shift[0], -1) - 0.5
        return torch.stack([-red, red], 1)

    def depth(self, images):
        return 10 - 5 * images[:, 0].roll(self.shift[1], -1)


def squares(count: int = 2, size: int = 32) -> torch.Tensor:
    images = torch.zeros(count, 3, size, size)
    for i in range(count):
        images[i, :, 6 + i : 20, 8 : 22 - i] = 1
    return images


def test_edges_in_the_same_place_are_not_suspicious():
    """0 in closed form: all three maps of edges are the same."""
    seen = EdgeMonitor(Squares(), thresholds=(0.01,) * 3).watch(squares())
    assert all(value.abs().max() < 1e-6 for value in seen.suspicion.values())
    assert seen.attacked == ["none", "none"]
    assert not seen.alarm.any()
    assert (seen.scores + 0.01).abs().max() < 1e-6
    assert float(seen.disagreement.max()) < 1e-6


@pytest.mark.parametrize(
    ("shifted", "speaking"),
    [
        ({"labels": 3}, {"image_labels", "labels_depth"}),
        ({"depth": 3}, {"image_depth", "labels_depth"}),
        ({"labels": 3, "depth": 3}, {"image_labels", "image_depth"}),
    ],
)
def test_what_moves_parts_it_from_the_other_two(shifted, speaking):
    seen = EdgeMonitor(Squares(**shifted), thresholds=(0.01,) * 3).watch(squares())
    assert {pair for pair in PAIRS if (seen.suspicion[pair] > 0.05).all()} == speaking
    assert seen.attacked == ["network", "network"]
    where = seen.disagreement[0]
    assert where[26:].max() < 0.01 < where[6:20].max()  # below the square nothing disagrees


def test_two_of_three_pairs_make_an_alarm():
    moved, images = Squares(labels=3), squares(1)
    for thresholds, alarm in (
        ((0.01, math.inf, 0.01), True),
        ((0.01, math.inf, math.inf), False),
        ((math.inf, 0.01, math.inf), False),
        ((math.inf,) * 3, False),
    ):
        seen = EdgeMonitor(moved, thresholds=thresholds).watch(images)
        assert bool(seen.alarm[0]) is alarm
        assert bool(seen.scores[0] >= 0) is alarm
    found = EdgeMonitor(moved).watch(images).suspicion
    exact = tuple(float(found[pair]) for pair in PAIRS)
    assert EdgeMonitor(moved, thresholds=exact).watch(images).scores.tolist() == [0]
    assert EdgeMonitor(moved, thresholds=exact).score(images).tolist() == [0]


def test_flat_images_and_labels_are_numbers():
    seen = EdgeMonitor(Squares()).watch(torch.full((1, 3, 16, 16), 0.2))
    assert all(value.isfinite().all() for value in seen.suspicion.values())


def test_the_conformance_kit_is_kept_and_the_spec_rebuilds():
    monitor = EdgeMonitor(Squares(labels=2), thresholds=(0.1, 0.2, 0.3), rate=0.05, condition="mine")
    check_monitor(monitor, size=(16, 24))
    again = registry.build("network", monitor.spec)
    assert (again.thresholds, again.rate, again.condition) == (monitor.thresholds, 0.05, "mine")
    assert EdgeMonitor(Squares()).spec == "edges(network=squares(labels=0, depth=0))"


def test_a_network_that_gives_no_numbers_is_named_and_raises_no_alarm():
    class Lost(Squares):
        def depth(self, images):
            return super().depth(images).index_fill(0, torch.tensor([1]), torch.nan)

    monitor = EdgeMonitor(Lost(labels=3), thresholds=(0.01,) * 3)
    seen = monitor.watch(squares())
    assert seen.failed == [(), ("network",)]
    assert seen.attacked == ["network", "unknown"]
    assert seen.alarm.tolist() == [True, False]
    assert seen.scores.isnan().tolist() == [False, True]
    with pytest.raises(RobustsegError, match="expected finite answers for 'a_0', got none of the network"):
        suspicions(EdgeMonitor(Broken()), Noisy(2))


class Broken(Squares):
    def forward(self, images):
        return super().forward(images) * torch.nan


class Noisy(Dataset):
    """Squares under noise, each its own."""

    spec, label_space = "noisy", gray_space(2)

    def __init__(self, count: int, start: int = 0):
        self.start, self.ids = start, tuple(f"a_{i}" for i in range(count))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(self.start + index)
        image = (squares(1, 16)[0] * 0.4 + 0.6 * torch.rand(3, 16, 16, generator=generator)).clamp(0, 1)
        return Sample(image, torch.full((16, 16), 255), self.ids[index])


def test_fitted_thresholds_promise_their_rate():
    """Each pair speaks on two thirds of the rate, so an alarm of two pairs comes on no more than the rate."""
    data, rate = Noisy(89), 0.1
    monitor = EdgeMonitor(Squares()).fit(data, rate=rate)
    found = suspicions(monitor, data, batch_size=30)
    above = np.array([found[pair] >= t for pair, t in zip(PAIRS, monitor.thresholds, strict=True)])
    assert above.sum(1).tolist() == [
        5,
        5,
        5,
    ]  # the 6th largest of 89 is the last that does not speak: 90 * 2/3 * 0.1 = 6
    assert (above.sum(0) >= 2).sum() <= rate * (len(data) + 1)
    assert (monitor.rate, monitor.condition) == (rate, "images exchangeable with 89 of noisy")
    fresh = suspicions(monitor, Noisy(200, start=1000), batch_size=50)
    votes = sum((fresh[pair] >= t).astype(int) for pair, t in zip(PAIRS, monitor.thresholds, strict=True))
    assert (votes >= 2).mean() < 2 * rate
    with pytest.raises(RobustsegError, match="expected at least 149 clean scores"):
        monitor.fit(data, rate=0.01)


def test_networks_without_depth_and_wrong_thresholds_are_told():
    with pytest.raises(SpecError, match=r"expected a network with depth\(images\), got pixel"):
        EdgeMonitor(PixelNetwork())
    with pytest.raises(SpecError, match="expected thresholds for image_labels, image_depth, labels_depth"):
        EdgeMonitor(Squares(), thresholds=(0.1, 0.2))
