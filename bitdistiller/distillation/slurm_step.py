"""The SLURM step that this process is a task of, if it is one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from submitit.helpers import TorchDistributedEnvironment


def tasks_are_processes(given: Mapping[str, str]) -> bool:
    """Whether the environment is that of a step with several tasks on a node: each is a process of the training."""
    return _tasks(given) > _nodes(given)


def tasks_are_launchers(given: Mapping[str, str]) -> bool:
    """Whether it is that of a step over several nodes with one task on each, which starts the processes of its node."""
    return 1 < _tasks(given) == _nodes(given)


def _tasks(given: Mapping[str, str]) -> int:
    return int(given.get("SLURM_STEP_NUM_TASKS", "1")) if "SLURM_STEP_ID" in given else 0


def _nodes(given: Mapping[str, str]) -> int:
    return int(given.get("SLURM_STEP_NUM_NODES", "1"))


def described(given: Mapping[str, str]) -> TorchDistributedEnvironment:
    """What submitit reads from SLURM's variables: master address and port, rank of the task, number of tasks."""
    from submitit.helpers import TorchDistributedEnvironment

    os.environ.setdefault("SUBMITIT_EXECUTOR", "slurm")
    os.environ.setdefault("MASTER_PORT", str(step_port(given)))
    return TorchDistributedEnvironment()


def step_port(given: Mapping[str, str]) -> int:
    """A port that all tasks of a SLURM step come to and other steps hardly do, as jobs and steps are counted up."""
    return 20_000 + (int(given["SLURM_JOB_ID"]) * 97 + int(given["SLURM_STEP_ID"])) % 40_000
