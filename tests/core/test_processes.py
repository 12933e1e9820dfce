"""What a launcher started is read from the environment; a shell inside a job is alone."""

import pytest

from robustseg.core.errors import RobustsegError
from robustseg.core.processes import require_alone, world

TASK = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("environment", "size", "launcher"),
    [
        ({}, 1, ""),
        ({"WORLD_SIZE": "2", "RANK": "0"}, 2, "torchrun"),
        ({"WORLD_SIZE": "1", "RANK": "0"}, 1, ""),
        ({"WORLD_SIZE": "many"}, 1, ""),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, 3, "MPI"),
        ({"PMI_SIZE": "8"}, 8, "MPI"),
        ({**TASK, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, 4, "SLURM"),
        ({**TASK, "SLURM_PROCID": "0"}, 4, "SLURM"),
        ({**TASK, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, 1, ""),  # srun --ntasks=1 in a larger job
        ({**TASK, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, 1, ""),
        (TASK, 1, ""),  # a shell of salloc
        ({**TASK, "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "0"}, 1, ""),
        ({**TASK, "SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "0"}, 1, ""),
        ({**TASK, "SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, 4, "SLURM"),
    ],
)
def test_processes_of_a_launcher(environment: dict[str, str], size: int, launcher: str) -> None:
    assert world(environment) == (size, launcher)


def test_one_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_alone()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    with pytest.raises(
        RobustsegError, match=r"expected one process, got 3 started by MPI, .*; try the command without"
    ):
        require_alone()
