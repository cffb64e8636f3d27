"""What a submitted job runs: a bitdistiller command, brought back under its job id until it is finished."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bitdistiller.cluster.child import Child
from bitdistiller.cluster.states import settled_slurm_state
from bitdistiller.errors import EXIT_RETRY
from bitdistiller.stages.lock import job_id

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

logger = logging.getLogger(__name__)

LEADER_SECONDS = 120.0
"""How long the other tasks wait for the first one to bring the job back."""


@dataclass
class Command:
    """
    A command line as the callable that submitit runs; its result is the exit code.

    It holds no state but the command line: what is done is in the stage's work directory. So the same object is
    submitted again when the command ends with 75 or has to end before it is done.
    """

    arguments: list[str]
    directory: str
    """Where it runs; relative paths of the command line are from here."""
    executor: str
    """slurm, local or debug."""
    host: str
    """Where it was submitted; a local job lives there."""
    tasks: int = 1
    grace_seconds: float = 90.0
    """What the command has for saving."""
    environment: dict[str, str | None] = field(default_factory=dict)
    """Changes to the environment; None takes a variable away."""
    module: str = "bitdistiller"
    """What `python -m` runs."""

    def __call__(self) -> int:
        """Run it; the exit code, unless the job is to come back."""
        while True:
            child = Child(self._command_line(), Path(self.directory), self._environment(), self.grace_seconds)
            code = child.run()
            unfinished = code == EXIT_RETRY or (bool(child.signals) and code < 0)
            if not unfinished:
                return code
            if self.executor == "local" and not child.signals:
                continue
            if self.executor == "slurm":
                self._leave_unless_running(bool(child.signals))
                come_back()
            elif self.executor == "local" and signal.SIGUSR2 in child.signals:
                come_back()
            return EXIT_RETRY

    def checkpoint(self) -> DelayedSubmission:
        """What submitit submits in this job's place: the same again."""
        from submitit.core.job_environment import JobEnvironment
        from submitit.helpers import DelayedSubmission

        pickle = JobEnvironment().paths.submitted_pickle
        pickle.with_suffix(f"{pickle.suffix}.save_tmp").unlink(missing_ok=True)  # of an attempt killed while writing
        return DelayedSubmission(self)

    def _command_line(self) -> list[str]:
        return [sys.executable, "-m", self.module, *self.arguments]

    def _environment(self) -> dict[str, str]:
        merged = {**os.environ, **self.environment}
        return {name: value for name, value in merged.items() if value is not None}

    def _leave_unless_running(self, asked: bool) -> None:
        """End without a result when SLURM has ended the job itself: cancelled, or already queued again."""
        state = settled_slurm_state(job_id() or "")
        if asked and state != "RUNNING":
            logger.info("the scheduler has ended this job (%s); what is done is saved", state)
            sys.exit(EXIT_RETRY)


def come_back() -> None:
    """
    Have submitit queue this job again and end this process.

    It does so in its handler of SIGUSR2, and only in the first task of several; the others wait to be ended with it.
    Raises UncompletedJobError when the job has reached its walltime too often.
    """
    signal.raise_signal(signal.SIGUSR2)
    time.sleep(LEADER_SECONDS)
    sys.exit(EXIT_RETRY)
