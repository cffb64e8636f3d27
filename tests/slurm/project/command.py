"""One call of Snakemake that runs beside the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from slurm.rig.daemons import wait_until

SECONDS = 600.0


class Command:
    """A program with its output in a file; a context manager that leaves nothing running."""

    def __init__(self, command: list[str], directory: Path, environment: dict[str, str], log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupt()

    @property
    def output(self) -> str:
        """What it said so far."""
        return self.log.read_text(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit code; raises TimeoutError, with the end of its output, where it does not end by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {seconds:.0f} s:\n{self.output[-3000:]}") from None

    def finish(self, seconds: float = SECONDS) -> None:
        """Wait for exit code 0; raises AssertionError with the output."""
        code = self.wait(seconds)
        assert code == 0, f"exit code {code}:\n{self.output[-6000:]}"

    def interrupt(self, seconds: float = 30) -> int:
        """Ctrl-C, on which Snakemake cancels its jobs; SIGKILL after `seconds`."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL to it and to what it started here; its jobs run on."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def wait_for(self, condition: object, what: str, seconds: float = 300) -> None:
        """Wait until `condition()` is true; AssertionError with the output where the command ends first."""

        def reached() -> object:
            found = condition()
            assert found or self.runs, f"ended before {what}:\n{self.output[-6000:]}"
            return found

        wait_until(reached, seconds, what)
