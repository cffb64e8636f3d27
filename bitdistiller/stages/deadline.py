"""The deadline: a stage stops by itself, with its progress saved, before the scheduler kills it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

from bitdistiller.errors import DeadlineReached
from bitdistiller.stages.lock import job_id

MARGIN_SECONDS = 20.0


class Deadline:
    """
    A time budget in minutes, counted from the start of the process's stage; None means no limit.

    SIGTERM and SIGUSR1 count as an expired budget: the stage stops at its next check.
    """

    def __init__(self, minutes: float | None) -> None:
        self.begin = time.monotonic()
        self.seconds = None if minutes is None else minutes * 60
        self.signalled: str | None = None
        self._last_check: float | None = None
        self._longest = 0.0

    @property
    def remaining(self) -> float:
        """Seconds left; infinite without a budget, 0 after a signal."""
        if self.signalled:
            return 0.0
        if self.seconds is None:
            return float("inf")
        return self.seconds - (time.monotonic() - self.begin)

    def is_due(self, longest_step_seconds: float = 0.0) -> bool:
        """
        True when another step of the longest length seen so far (or given) might not end in time.

        A step is what lies between two calls; what comes before the first is setting up.
        """
        now = time.monotonic()
        step = 0.0 if self._last_check is None else now - self._last_check
        self._longest = max(self._longest, step, longest_step_seconds)
        self._last_check = now
        margin = MARGIN_SECONDS if self.seconds is None else min(MARGIN_SECONDS, 0.1 * self.seconds)
        return bool(self.signalled) or self.remaining < self._longest + margin

    def check(self, longest_step_seconds: float = 0.0) -> None:
        """Call between steps, when progress is saved. Raises DeadlineReached (exit code 75)."""
        if self.is_due(longest_step_seconds):
            raise self.reached()

    def reached(self) -> DeadlineReached:
        """The error that ends the attempt."""
        reason = f"asked to stop by {self.signalled}" if self.signalled else "the time budget is nearly used"
        return DeadlineReached(f"{reason}; progress is saved and the same command goes on from here")

    @contextlib.contextmanager
    def excusing(self) -> Iterator[None]:
        """Errors after a signal are its doing, as when it also reached a worker process: raises DeadlineReached."""
        try:
            yield
        except Exception as error:
            if self.signalled and not isinstance(error, DeadlineReached):
                raise self.reached() from error
            raise

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Turn SIGTERM and SIGUSR1 into an expired budget while the stage runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGUSR1)
        previous = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: object) -> None:
        self.signalled = signal.Signals(number).name


def scheduler_minutes(walltime: float | None) -> float | None:
    """
    Minutes a job of this walltime still has: asked of SLURM where it can be, else all of it; None outside a job.

    A walltime binds only inside a scheduler's job, so that the same command line runs without a limit on a laptop.
    """
    job = job_id()
    if job is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        command = ["squeue", "--noheader", "--jobs", job, "--format", "%L"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return parse_time_left(answer.stdout.strip())
    return walltime


def parse_time_left(text: str) -> float:
    """Minutes in SLURM's `[days-][hours:]minutes:seconds`; raises ValueError for other texts."""
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if len(parts) < 2:
        raise ValueError(text)
    seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    return int(days or 0) * 1440 + seconds / 60
