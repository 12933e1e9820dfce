"""Learning while watching: what is learnt, when not, and the way back to the last good weights."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.core.types import Network
from robustseg.datasets.video import Frame
from robustseg.monitor.adapt import Adaptation, Schedule, agreement
from robustseg.monitor.stream import watch_stream
from robustseg.monitor.triplet import Triplet
from robustseg.networks.weights import load
from robustseg.report.timeline import outcome, read_timeline

MEMBER = "erfnet(classes='camvid', width=0.25)"


@pytest.fixture(scope="module")
def members() -> tuple[Network, Network]:
    """Two networks of random weights, the same ones at every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return api.network(MEMBER), api.network(MEMBER)


@pytest.fixture
def triplet(members: tuple[Network, Network]) -> Triplet:
    teacher, student = members
    return Triplet(teacher, student, copy.deepcopy(student)).eval()


def frames(count: int) -> Iterator[Frame]:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(3, 24, 40, generator=generator)
    for number in range(count):
        yield Frame(number, (0.9 * picture + 0.1 * torch.rand(3, 24, 40, generator=generator)).clamp(0, 1))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def kinds(folder: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in (folder / "events.jsonl").read_text().splitlines()]


def state(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_updates_bring_the_answers_of_the_teacher_nearer(members: tuple[Network, Network]) -> None:
    teacher, student = members
    adaptive = copy.deepcopy(student)
    adaptation = Adaptation(student, adaptive, Schedule(learning_rate=1e-3))
    images = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = teacher(images)
        before = agreement(logits, adaptive(images))
        assert agreement(logits * torch.nan, logits * torch.nan) == 0, "no prediction agrees with nothing"
    losses = [adaptation.update(images, logits) for _ in range(15)]
    assert losses[-1] < losses[0]
    with torch.inference_mode():
        assert agreement(logits, adaptive(images)) > before
    assert not adaptive.training, "finetuned with frozen statistics and without dropout"


def test_falling_back_is_to_the_last_weights_that_were_called_good(members: tuple[Network, Network]) -> None:
    teacher, student = members
    adaptation = Adaptation(student, copy.deepcopy(student), Schedule(window=3, bound=0.1))
    images = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        logits = teacher(images)
    adaptation.update(images, logits)
    adaptation.remember([0.1, 0.2])
    good = state(adaptation.adaptive)
    adaptation.update(images, logits)
    assert not same(good, state(adaptation.adaptive))
    adaptation.prefix = [0.8, 0.8]
    assert [adaptation.see(a) for a in (0.8, 0.8, 0.72)] == ["", "", "held"]
    assert adaptation.see(0.5) == "sunk"
    adaptation.fall_back()
    assert same(good, state(adaptation.adaptive))
    assert adaptation.good.scores == (0.1, 0.2)
    assert adaptation.see(0.5) == "", "a new window begins"


def test_a_stream_learns_on_a_copy_at_the_stated_rate(triplet: Triplet, tmp_path: Path) -> None:
    before = state(triplet.adaptive)
    schedule = Schedule(every=4, learning_rate=1e-4, window=5)
    watch_stream(triplet, frames(18), source="noise", folder=tmp_path, quiet=10, schedule=schedule, video=False)
    assert same(before, state(triplet.adaptive))
    assert [line["frame"] for line in lines(tmp_path) if line.get("updated")] == [12, 16]
    assert not same(before, state(load(tmp_path / "adaptive.safetensors")))
    told = outcome(read_timeline(tmp_path))[-1]
    assert told.startswith("The adaptive network learnt in 2 updates and fell back 0 times; ")


def test_what_spoils_the_adaptive_network_is_undone(triplet: Triplet, tmp_path: Path) -> None:
    schedule = Schedule(every=2, learning_rate=3.0, window=4)
    watch_stream(triplet, frames(20), source="noise", folder=tmp_path, quiet=10, schedule=schedule, video=False)
    assert "fallback" in kinds(tmp_path)
    # the first update, on frame 10, breaks A; it is told on frame 11, and on frame 12 A answers again
    told = lines(tmp_path)
    assert told[10]["updated"]
    assert told[11]["failed"] == ["adaptive"] or told[11]["alarm"]
    assert told[12]["failed"] == []
    assert all(not line.get("updated") for line in lines(tmp_path) if line["alarm"])


class AfraidOfTheDark(Network):
    """Labels dark images the other way round."""

    def __init__(self, network: Network):
        super().__init__(network.label_space)
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images) * (1 if float(images.mean()) > 0.3 else -1)


def test_nothing_is_learnt_while_an_alarm_holds(members: tuple[Network, Network], tmp_path: Path) -> None:
    teacher, student = members
    afraid = Triplet(AfraidOfTheDark(student), teacher, copy.deepcopy(student)).eval()

    def darker() -> Iterator[Frame]:
        for frame in frames(24):
            assert frame.image is not None
            yield frame._replace(image=frame.image * (0.4 if 13 <= frame.number < 20 else 1))

    schedule = Schedule(every=1, learning_rate=1e-7)
    watch_stream(afraid, darker(), source="noise", folder=tmp_path, quiet=10, video=False, schedule=schedule)
    told = lines(tmp_path)
    assert all(line["alarm"] == "teacher" for line in told[13:20])
    assert not any(line.get("updated") for line in told if line["alarm"])
    assert all(line["updated"] for line in told[10:13])
    assert kinds(tmp_path).count("fallback") == kinds(tmp_path).count("alarm") == 1


def test_a_stopped_stream_goes_on_from_the_last_good_weights(triplet: Triplet, tmp_path: Path) -> None:
    schedule = Schedule(every=1, learning_rate=1e-4, window=5)
    given: dict[str, Any] = {"source": "noise", "folder": tmp_path, "quiet": 10, "schedule": schedule, "video": False}

    def stopped() -> Iterator[Frame]:
        yield from frames(17)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch_stream(triplet, stopped(), **given)
    kept = (tmp_path / "adaptive.safetensors").read_bytes()
    watch_stream(triplet, frames(17), **given)
    assert (tmp_path / "adaptive.safetensors").read_bytes() == kept
    watch_stream(triplet, frames(22), **given)
    assert [line["frame"] for line in lines(tmp_path)] == list(range(22))
    assert (tmp_path / "adaptive.safetensors").read_bytes() != kept


def test_what_makes_no_sense_is_said(triplet: Triplet, tmp_path: Path) -> None:
    with pytest.raises(RobustsegError, match="expected quiet frames"):
        watch_stream(triplet, frames(1), source="noise", folder=tmp_path, quiet=0, schedule=Schedule())
    with pytest.raises(RobustsegError, match="alpha from 0 to below 1"):
        Schedule(alpha=1)
