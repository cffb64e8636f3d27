"""Processes that belong together: started at once, told the same signals, none left behind, one exit code for all."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from bitdistiller.errors import EXIT_INPUT, EXIT_RETRY

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Launcher:
    """
    One command line in several environments, as long as the processes run.

    SIGTERM and SIGUSR1 mean the same to a stage and go on to all of them, as `passed_on` where that is given. When one
    fails, the others get GRACE_SECONDS to end by themselves.
    """

    def __init__(
        self, command: list[str], environments: Sequence[Mapping[str, str]], passed_on: signal.Signals | None = None
    ) -> None:
        self.command, self.environments, self.passed_on = command, environments, passed_on
        self.children: list[subprocess.Popen] = []
        self.received: int | None = None

    def run(self) -> int:
        """Start them, wait for them, leave none behind; the exit code of all together: see `verdict`."""
        previous = {number: signal.signal(number, self._forward) for number in SIGNALS}
        try:
            self._start()
            return verdict(self._wait(), self.received)
        finally:
            for child in self.children:
                child.kill()
                child.wait()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start(self) -> None:
        for environment in self.environments:
            self.children.append(subprocess.Popen(self.command, env=environment))
            if self.received is not None:  # it came before this child
                self.children[-1].send_signal(self.received)

    def _forward(self, number: int, _: FrameType | None) -> None:
        self.received = self.passed_on or number
        for child in self.children:
            child.send_signal(self.received)

    def _wait(self) -> list[int]:
        """Exit codes of the children that ended by themselves, by rank."""
        failed_at = None
        while None in (codes := [child.poll() for child in self.children]):
            failures = [code for code in codes if code]
            if failures and failed_at is None:
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
                logger.warning("one process ended with %d and the others do not; ending them", failures[0])
                break
            time.sleep(0.1)
        return [child.returncode for child in self.children if child.returncode is not None]


def verdict(codes: list[int], received: int | None = None) -> int:
    """
    One exit code for all processes: bad input (2) wins, then a failure, then "go on later" (75), then success.

    codes: as subprocess gives them, -n for a process that signal n killed (here 128 + n, as in a shell). Where the
    launcher received a signal that killed a process before it could listen, nothing was lost: 75.
    """
    if EXIT_INPUT in codes:
        return EXIT_INPUT
    if received is not None and -received in codes:
        return EXIT_RETRY
    failures = [code for code in codes if code not in (0, EXIT_RETRY)]
    killed = [128 - code for code in failures if code < 0]
    failed = [code for code in failures if code > 0]
    return (killed + failed + [EXIT_RETRY] * (EXIT_RETRY in codes) + [0])[0]
