"""What the sandbox says about a program."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "exited", "timeout", "memory", "killed", "unavailable"]
REPORTED = ("failed", "exited", "memory")
READY = b"ready\n"


@dataclass(frozen=True)
class Outcome:
    """
    How a program ended; `detail` is one line for a reader.

    passed: all of it ran without an exception. failed: an exception. exited: it ended by itself before its checks had
    run. timeout, memory: over a limit. killed: by a signal. unavailable: it was not run, the isolation failed.
    """

    status: Status
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the program and its checks ran to their end."""
        return self.status == "passed"


def judge(said: bytes, token: bytes, exit_code: int, late: bool) -> Outcome:
    """
    The outcome of a program from what stands on its verdict descriptor.

    said: all bytes written there; exit_code: of the started process, -n or 128 + n for signal n; late: it was stopped
    at its time limit. Only `ready` followed by the exact token is a pass.
    """
    if said == READY + token:
        return Outcome("passed")
    started, report = said.startswith(READY), said.removeprefix(READY)
    if late:
        return Outcome("timeout", "wall time") if started else Outcome("unavailable", "did not start in time")
    if report:
        return _reported(report, started)
    number = -exit_code if exit_code < 0 else max(exit_code - 128, 0)
    if not started:
        return Outcome("unavailable", f"did not start (exit code {exit_code})")
    if number == signal.SIGXCPU:
        return Outcome("timeout", "processor time")
    return Outcome("killed", f"signal {number}") if number else Outcome("exited", "ended before its checks had run")


def _reported(text: bytes, started: bool) -> Outcome:
    try:
        value = json.loads(text)
        status, detail = value["status"], str(value["detail"])
    except (ValueError, KeyError, TypeError):
        status, detail = "failed", "wrote to the verdict descriptor"
    if not started:
        return Outcome("unavailable", detail)
    return Outcome(status if status in REPORTED else "failed", detail)
