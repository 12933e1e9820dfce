"""Fabric for a named device: the one place that says where and in how many processes a network is trained."""

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from robustseg.core.errors import RobustsegError
from robustseg.core.processes import world

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def fabric_on(device: str, precision: str = "32-true", *, devices: int = 1) -> Fabric:
    """Launch Fabric on a device of this machine, with one process for each of `devices` devices.

    With several devices, Fabric starts this script again once a device, so check all user input before the call. Under a
    launcher that did so already, such as torchrun, `devices` is the number of its processes.

    Args:
        device: such as `cpu`, `cuda`, `cuda:1` or `mps`. An index selects this one GPU.
        precision: one of `PRECISIONS`.
        devices: number of processes; on a GPU at most the number of GPUs, and 1 with an index.

    Raises:
        RobustsegError: the precision is unknown, there are not so many devices, or a launcher started another number of
            processes.
    """
    if precision not in PRECISIONS:
        raise RobustsegError(f"expected a precision of {', '.join(PRECISIONS)}, got '{precision}'; try 32-true")
    place = torch.device(device)
    most = {"cuda": 1 if place.index is not None else torch.cuda.device_count(), "mps": 1}.get(place.type)
    if devices < 1 or (most is not None and devices > most):
        there = f"1 to {most}" if most is not None else "at least 1"
        raise RobustsegError(f"expected {there} devices of '{device}', got {devices}; try --devices 1")
    if devices != world().size != 1:
        raise _not_joined(devices)
    try:
        fabric = Fabric(
            accelerator="gpu" if place.type == "cuda" else place.type,
            devices=[place.index] if place.type == "cuda" and place.index is not None else devices,
            precision=precision,  # type: ignore[arg-type]
            plugins=None if _launched() else [LightningEnvironment()],
        )
        if world().size > 1 and not fabric.strategy.cluster_environment.creates_processes_externally:  # type: ignore[attr-defined]
            raise _not_joined(1)
        fabric.launch()
    except (KeyError, RuntimeError) as error:  # what Fabric says of a launcher that does not tell it enough
        if world().size == 1:
            raise
        raise RobustsegError(
            f"expected to join the processes that {world().launcher} started, got: {error}; try the command without the launcher"
        ) from error
    return fabric


def _launched() -> bool:
    """Whether a launcher that Fabric knows started this process; a shell inside a SLURM job is none, as Fabric takes it for one."""
    elastic = torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()
    return elastic or world().launcher not in ("", "torchrun")


def require_joined(fabric: Fabric) -> None:
    """Refuse one of several processes that trains alone, where all would write the same folder.

    Args:
        fabric: launched.

    Raises:
        RobustsegError: a launcher started other processes than those that train together.
    """
    if fabric.world_size != world().size != 1:
        raise _not_joined(fabric.world_size)


def _not_joined(devices: int) -> RobustsegError:
    size, launcher = world()
    return RobustsegError(
        f"expected the {size} processes that {launcher} started to train together, got training in {devices}; "
        f"try --devices {size}, or the command without the launcher"
    )
