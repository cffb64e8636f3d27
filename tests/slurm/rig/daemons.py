"""Daemons in the foreground, each stopped by its own handle and gone when the test process is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PARENT_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None)


class Daemon:
    """One program that runs until it is stopped."""

    def __init__(self, name: str, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: _libc.prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM),
            )

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def stop(self, seconds: float = 10.0) -> None:
        """SIGTERM, and SIGKILL after `seconds`."""
        if self.runs:
            self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, at once."""
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `condition()` is true; raises TimeoutError that says what did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s still waiting for {what}")
        time.sleep(0.1)


def descendants(roots: Iterable[int]) -> set[int]:
    """The processes of these ids and all their children's children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, pending = set(), list(roots)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending += children.get(pid, [])
    return found


def processes_with(variables: dict[str, str]) -> set[int]:
    """Processes whose environment at their start had all of these values."""
    wanted = {f"{key}={value}".encode() for key, value in variables.items()}
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.add(int(entry.name))
    return found


def processes_that_hold(file: Path) -> set[int]:
    """Processes with this file open."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if any(os.readlink(link) == str(file) for link in (entry / "fd").iterdir()):
                    found.add(int(entry.name))
    return found


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL to each that still runs."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
