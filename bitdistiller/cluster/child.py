"""A process that is asked to save before the scheduler ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import FrameType

from bitdistiller.stages.parent import signal_when_parent_dies

ASK = (signal.SIGTERM, signal.SIGUSR2)
"""Signals by which a scheduler says that a job is about to end: SLURM's own, and the one submitit asks it for."""
POLL_SECONDS = 0.2


class Child:
    """
    A command as a child process. SIGTERM and SIGUSR2 to this process reach it as SIGTERM, by which our stages save.

    It has `grace` seconds to end then, before it is killed. It never sees SIGUSR2 itself, which schedulers send to
    every process of a job and which would end it; and it gets SIGTERM when this process dies.
    """

    def __init__(self, command: list[str], directory: Path, environment: Mapping[str, str], grace: float) -> None:
        self.command, self.directory, self.environment, self.grace = command, directory, environment, grace
        self.signals: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._kill_at: float | None = None

    def run(self) -> int:
        """Its exit code, -n when signal n ended it."""
        previous = {number: signal.signal(number, self._on_signal) for number in ASK}
        try:
            self._process = self._start()
            if self.signals:
                self._process.terminate()
            return self._wait(self._process)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            cwd=self.directory,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            preexec_fn=partial(_bind, os.getpid()),
        )

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        try:
            while True:
                try:
                    return process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    if self._kill_at is not None and time.monotonic() > self._kill_at:
                        process.kill()
        finally:
            process.kill()
            process.wait()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.signals.add(number)
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self.grace
            if self._process is not None:
                self._process.terminate()


def _bind(parent: int) -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal_when_parent_dies(signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
