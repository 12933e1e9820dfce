"""Fabric for a named device: the one place that says where and in how many processes a network is trained."""

import torch
from lightning_fabric import Fabric

from robustseg.core.errors import RobustsegError

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def fabric_on(device: str, precision: str = "32-true", *, devices: int = 1) -> Fabric:
    """Launch Fabric on a device of this machine, with one process for each of `devices` devices.

    With several devices, Fabric starts this script again once a device, so check all user input before the call.

    Args:
        device: such as `cpu`, `cuda`, `cuda:1` or `mps`. An index selects this one GPU.
        precision: one of `PRECISIONS`.
        devices: number of processes; on a GPU at most the number of GPUs, and 1 with an index.

    Raises:
        RobustsegError: the precision is unknown, or there are not so many devices.
    """
    if precision not in PRECISIONS:
        raise RobustsegError(f"expected a precision of {', '.join(PRECISIONS)}, got '{precision}'; try 32-true")
    place = torch.device(device)
    most = {"cuda": 1 if place.index is not None else torch.cuda.device_count(), "mps": 1}.get(place.type)
    if devices < 1 or (most is not None and devices > most):
        there = f"1 to {most}" if most is not None else "at least 1"
        raise RobustsegError(f"expected {there} devices of '{device}', got {devices}; try --devices 1")
    fabric = Fabric(
        accelerator="gpu" if place.type == "cuda" else place.type,
        devices=[place.index] if place.type == "cuda" and place.index is not None else devices,
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric
