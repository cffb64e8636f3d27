"""Faults in the course of one call of Snakemake: struck on events, told apart by attempts, measured by files."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from slurm.project.command import SECONDS
from slurm.project.faults import runs
from slurm.project.inputs import SAVE_EVERY
from slurm.project.project import Project
from slurm.project.work import attempts, batches, commits, repeated_steps
from slurm.rig.daemons import wait_until

Fault = Callable[[Project, dict[str, Any]], None]


@dataclass(frozen=True)
class Row:
    """One line of the table: what happened, and what it cost."""

    fault: str
    stage: str
    happened: str
    lost: str
    """Work that was done twice."""
    seconds: float | None
    """From the fault to the next durable step of progress; None where nothing was held up."""


class Scenario:
    """
    The literal command, the faults that are struck while it runs, and their rows; a context manager.

    Where a fault may end the command itself, the same command is given again.
    """

    def __init__(self, project: Project, rows: list[Row]) -> None:
        self.project, self.rows = project, rows
        self.command = project.start()
        self.calls = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.command.interrupt()

    def strike(
        self,
        name: str,
        happened: str,
        fault: Fault,
        work: Path,
        after: int = 2,
        ends: bool = True,
        ends_command: bool = False,
    ) -> None:
        """
        Let `fault` happen once the running attempt in `work` has made `after` steps of progress, and wait until there
        is more: in a later attempt where the fault `ends` this one, else in the same.
        """
        path, calls = self.project.path(work), self.calls
        self.command.wait_for(lambda: progressing(path, after), f"{after} steps of progress in {work}")
        attempt, count = attempts(path)[-1], len(attempts(path))
        begin, done = time.monotonic(), batches(path)
        fault(self.project, attempt)
        durable, wanted = commits(path), count + 1 if ends else count
        self._wait_for(lambda: len(attempts(path)) >= wanted and commits(path) > durable, name, ends_command)
        seconds = round(time.monotonic() - begin, 1)
        assert ends or len(attempts(path)) == count, f"{name} ended an attempt: {attempts(path)}"
        assert done.items() <= batches(path).items(), f"{name}: finished batches were done again"
        again = ", same command again" * (self.calls - calls)
        self.rows.append(Row(name, stage_of(work), happened + again, lost(path) if ends else "nothing", seconds))

    def finish(self) -> None:
        """Wait until the command succeeds."""
        self.command.finish()

    def _wait_for(self, goes_on: Callable[[], bool], name: str, ends_command: bool) -> None:
        if not ends_command:
            self.command.wait_for(goes_on, f"progress after {name}")
            return
        wait_until(lambda: goes_on() or not self.command.runs, SECONDS, f"progress after {name}")
        if not self.command.runs and not goes_on():
            self.command, self.calls = self.project.start(), self.calls + 1
            self.command.wait_for(goes_on, f"progress after {name} and the same command again")


def lost(work: Path) -> str:
    """What the last attempt did again; raises AssertionError where that is more than a save interval."""
    if work.name != "train":
        return "the running batch"
    steps = (repeated_steps(work) or [0])[-1]
    assert steps <= SAVE_EVERY, f"{steps} steps were done again"
    return f"{steps} steps of {SAVE_EVERY} between saves"


def progressing(work: Path, after: int) -> bool:
    """Whether the last attempt runs and has made `after` steps of progress."""
    history = attempts(work)
    if not history or "outcome" in history[-1] or not runs(history[-1]["pid"]):
        return False
    return commits(work) >= history[-1]["commits_before"] + after


def stage_of(work: Path) -> str:
    """The stage that works there."""
    return "generate" if "shards" in work.parts else work.name


def write_rows(path: Path, rows: list[Row]) -> None:
    """Append to a CSV, with a header where it is new."""
    new = not path.exists()
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, [field.name for field in fields(Row)])
        if new:
            writer.writeheader()
        writer.writerows(map(asdict, rows))
