"""What a job is to get, and the same in submitit's words."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Literal

from bitdistiller.environments import REPOSITORY

ExecutorName = Literal["slurm", "local", "debug"]
DEFAULT_MINUTES = 60
A_YEAR_MINUTES = 365 * 1440
PACKAGE = REPOSITORY
"""Where jobs import this package from, wherever they run."""


@dataclass(frozen=True)
class Request:
    """What a job is to get; None leaves it to the scheduler."""

    partition: str | None = None
    account: str | None = None
    gpus: int | None = None
    """On each node."""
    cpus: int = 1
    """For each task."""
    mem_mb: int | None = None
    """On each node."""
    minutes: int | None = None
    """Walltime of one attempt; None is an hour under SLURM and no limit else."""
    nodes: int = 1
    tasks_per_node: int = 1
    name: str | None = None
    requeues: int = 20
    """How often the job may come back after its walltime; preemptions do not count."""
    warning_seconds: int = 120
    """How long before the walltime the command is asked to save."""
    extra: tuple[str, ...] = ()
    """More options of sbatch, key=value or key."""

    @property
    def tasks(self) -> int:
        """Processes in all."""
        return self.nodes * self.tasks_per_node


def parameters(arguments: list[str], request: Request, executor: ExecutorName) -> dict[str, Any]:
    """The request in submitit's words."""
    name = request.name or f"bitdistiller-{arguments[0]}"
    minutes = request.minutes or (DEFAULT_MINUTES if executor == "slurm" else A_YEAR_MINUTES)
    shared: dict[str, Any] = {"name": name, "timeout_min": minutes, "stderr_to_stdout": True}
    if executor != "slurm":
        return shared
    extra: dict[str, Any] = {"requeue": True}
    extra |= {key: value if equals else True for key, equals, value in (text.partition("=") for text in request.extra)}
    return shared | {
        "nodes": request.nodes,
        "tasks_per_node": request.tasks_per_node,
        "cpus_per_task": request.cpus,
        "gpus_per_node": request.gpus or None,
        "slurm_mem": f"{request.mem_mb}MB" if request.mem_mb else None,
        "slurm_partition": request.partition,
        "slurm_account": request.account,
        "slurm_signal_delay_s": request.warning_seconds,
        "slurm_setup": [f"export PYTHONPATH={shlex.quote(str(PACKAGE))}${{PYTHONPATH:+:$PYTHONPATH}}"],
        "slurm_additional_parameters": extra,
    }
