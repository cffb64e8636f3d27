"""A submitted job seen from outside: its state, its log, its exit code, also after whoever submitted it is gone."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from bitdistiller.cluster.command import Command
from bitdistiller.cluster.growing_file import GrowingFile
from bitdistiller.cluster.states import ENDED, local_state, slurm_state
from bitdistiller.distillation.launcher import verdict
from bitdistiller.errors import BitDistillerError, InputError, TryAgain

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
MOST_SECONDS_BETWEEN_STATES = 20.0
LATENCY_SECONDS = 20.0
"""How late a result may appear on a shared file system after its job has ended."""
TAIL_LINES = 20


class JobFailed(BitDistillerError):
    """A job ended without a result. Exit code 1."""


class SubmittedJob:
    """The files of job `job_id` below `folder`; raises InputError where there are none."""

    def __init__(self, job_id: str, folder: Path) -> None:
        from submitit.core.utils import JobPaths

        self.job_id, self.folder = job_id, folder.absolute() / "%j"
        self._paths = [JobPaths(self.folder, job_id)]
        if not self._paths[0].submitted_pickle.exists():
            raise InputError(f"--attach {job_id}: no such job in {folder}; accepted: {_known(folder)}")
        self._paths += [JobPaths(self.folder, job_id, task) for task in range(1, self.command.tasks)]
        if self.command.executor == "local" and self.command.host != socket.gethostname():
            raise InputError(f"--attach {job_id}: a process on {self.command.host}; attach there")

    @cached_property
    def command(self) -> Command:
        """What was submitted."""
        from submitit.core.utils import DelayedSubmission

        command: Command = DelayedSubmission.load(self._paths[0].submitted_pickle).function
        return command

    @property
    def log(self) -> Path:
        """Standard output and error of the first task, all attempts."""
        return self._paths[0].stdout

    @property
    def state(self) -> str:
        """FINISHED when all results are there, else the scheduler's word."""
        if self.is_finished():
            return "FINISHED"
        if self.command.executor == "local":
            return local_state(self.job_id, self.folder)
        return slurm_state(self.job_id)

    def is_finished(self) -> bool:
        """Whether every task has left its result."""
        folder = self.log.parent
        folder.chmod(folder.stat().st_mode)  # has network file systems look again
        return all(paths.result_pickle.exists() for paths in self._paths)

    def exit_code(self) -> int:
        """
        Of all tasks together, see `verdict`.

        Raises TryAgain when a job came to its walltime too often, and JobFailed for errors around the command.
        """
        from submitit.core.utils import pickle_load

        codes = []
        for paths in self._paths:
            outcome, value = pickle_load(paths.result_pickle)
            if outcome == "success":
                codes.append(value)
            elif "timed-out too many times" in value:
                raise TryAgain(f"job {self.job_id} met its walltime too often; the same command goes on from here")
            else:
                raise JobFailed(f"job {self.job_id}: {value.strip().splitlines()[-1]}")
        return verdict(codes)

    def wait(self, show: Callable[[str], None], tail: int = TAIL_LINES) -> int:
        """
        Pass the log on to `show` as it grows, from its last `tail` lines; the exit code at the end.

        Raises TryAgain for a job that ended without a result though nothing is wrong with the command, else JobFailed.
        """
        log = GrowingFile(self.log, tail)
        watch = _Watch(self)
        while not self.is_finished():
            show(log.news())
            watch.check()
            time.sleep(POLL_SECONDS)
        show(log.news())
        return self.exit_code()


class _Watch:
    """Asks for a running job's state ever more rarely, and notices when it has ended without a result."""

    def __init__(self, job: SubmittedJob) -> None:
        self.job = job
        self._pause, self._next = 1.0, 0.0
        self._ended_at: float | None = None
        self._state: str | None = None

    def check(self) -> None:
        """Raises once the state has been an end for LATENCY_SECONDS, without a result."""
        now = time.monotonic()
        if now < self._next:
            return
        state = self.job.state
        if state != self._state:
            logger.info("job %s: %s", self.job.job_id, state)
            self._state = state
        if state not in ENDED:
            self._ended_at = None
            self._pause = min(1.5 * self._pause, MOST_SECONDS_BETWEEN_STATES)
        else:
            self._pause = 1.0
            self._ended_at = self._ended_at or now
            if now - self._ended_at > LATENCY_SECONDS:
                raise self._ending(state)
        self._next = now + self._pause

    def _ending(self, state: str) -> BitDistillerError:
        said = f"job {self.job.job_id} ended without a result ({state})"
        if state in {"FAILED", "COMPLETED", "OUT_OF_MEMORY"}:
            return JobFailed(f"{said}; its log: {self.job.log}")
        return TryAgain(f"{said}; the same command goes on from here")


def _known(folder: Path) -> str:
    jobs = sorted(path.parent.name for path in folder.glob("[0-9]*/*_submitted.pkl"))
    return ", ".join(jobs[-10:]) or "none was submitted there"
