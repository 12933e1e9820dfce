"""The device that is named is the device that Fabric is asked for; no GPU is needed to see this."""

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from robustseg.core.errors import RobustsegError
from robustseg.training import fabric
from robustseg.training.fabric import fabric_on, require_joined


class Asked(Fabric):
    """Notes what Fabric is asked for, and opens no device."""

    def __init__(self, **given: Any):
        self.given, self.launched = given, False

    def launch(self, *arguments: Any, **named: Any) -> None:
        self.launched = True


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "Fabric", Asked)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("device", "devices", "accelerator", "chosen"),
    [
        ("cpu", 1, "cpu", 1),
        ("cpu", 2, "cpu", 2),
        ("cuda", 1, "gpu", 1),
        ("cuda", 4, "gpu", 4),
        ("cuda:0", 1, "gpu", [0]),
        ("cuda:1", 1, "gpu", [1]),
        ("mps", 1, "mps", 1),
        ("mps:0", 1, "mps", 1),
    ],
)
def test_fabric_is_asked_for_the_named_device(
    device: str, devices: int, accelerator: str, chosen: int | list[int]
) -> None:
    made: Any = fabric_on(device, "bf16-mixed", devices=devices)
    assert made.given.pop("plugins")  # no launcher: Fabric starts the processes, also within a SLURM job
    assert made.given == {"accelerator": accelerator, "devices": chosen, "precision": "bf16-mixed"}
    assert made.launched


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(("device", "devices"), [("cuda:1", 2), ("cuda", 5), ("mps", 2), ("cpu", 0)])
def test_more_devices_than_there_are_is_an_error(device: str, devices: int) -> None:
    with pytest.raises(RobustsegError, match=f"got {devices}; try --devices 1"):
        fabric_on(device, devices=devices)


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(RobustsegError, match="expected a precision of 32-true, bf16-mixed, 16-mixed, got 'half'"):
        fabric_on("cpu", "half")


def test_the_cpu_is_ready_for_training() -> None:
    made = fabric_on("cpu")
    assert made.device == torch.device("cpu")
    assert made.world_size == 1


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_processes_that_fabric_did_not_join_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = fabric_on("cpu")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv(name, "2")
    for devices in (1, 3):
        with pytest.raises(
            RobustsegError, match=f"expected the 2 processes .* together, got .*{devices}; try --devices 2"
        ):
            fabric_on("cpu", devices=devices)
    with pytest.raises(RobustsegError, match=r"expected the 2 processes that .* started to train together"):
        fabric_on("cpu", devices=2)  # what does not tell its rank joins nothing
    with pytest.raises(RobustsegError, match=r"expected the 2 processes that .* started to train together"):
        require_joined(alone)


def test_a_shell_within_a_slurm_job_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    require_joined(fabric_on("cpu"))
