"""How many processes a launcher started: torchrun, srun and mpirun start the same command several times."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from robustseg.core.errors import RobustsegError

_SIZES = {
    "WORLD_SIZE": "torchrun",
    "OMPI_COMM_WORLD_SIZE": "MPI",
    "PMI_SIZE": "MPI",
    "MV2_COMM_WORLD_SIZE": "MPI",
    "JSM_NAMESPACE_SIZE": "jsrun",
}


class World(NamedTuple):
    """The processes that were started with this one, and by what; 1 without a launcher."""

    size: int = 1
    launcher: str = ""


def world(environment: Mapping[str, str] = os.environ) -> World:
    """What the environment says of a launcher.

    A SLURM job of several tasks counts where `srun` started this process. A shell of `salloc` is one process, and so is one
    whose job is called `bash` or `interactive`, as in Lightning Fabric.
    """
    for name, launcher in _SIZES.items():
        if (size := _number(environment.get(name))) > 1:
            return World(size, launcher)
    if "SLURM_PROCID" in environment:
        tasks = environment.get("SLURM_STEP_NUM_TASKS")
        if tasks is None and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
            tasks = environment.get("SLURM_NTASKS")
        if (size := _number(tasks)) > 1:
            return World(size, "SLURM")
    return World()


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 1


def require_alone() -> None:
    """Refuse to run as one of several processes that know nothing of each other.

    Raises:
        RobustsegError: a launcher started several.
    """
    here = world()
    if here.size > 1:
        raise RobustsegError(
            f"expected one process, got {here.size} started by {here.launcher}, which would do the same work; "
            "try the command without the launcher, or with one task"
        )
