"""Faults in the course of one call of Snakemake: struck on events, told apart by attempts, measured by files."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from slurm.project.command import Command
from slurm.project.faults import runs
from slurm.project.inputs import SAVE_EVERY
from slurm.project.project import Project
from slurm.project.work import attempts, batches, commits, repeated_steps

Fault = Callable[[Project, dict[str, Any]], None]


@dataclass(frozen=True)
class Row:
    """One line of the table: what happened, and what it cost."""

    fault: str
    stage: str
    happened: str
    lost: str
    """Work that was done twice."""
    seconds: float
    """From the fault to the next durable step of progress."""


class Scenario:
    """A running command, the faults that are struck, and their rows."""

    def __init__(self, project: Project, command: Command, rows: list[Row]) -> None:
        self.project, self.command, self.rows = project, command, rows

    def strike(self, name: str, happened: str, fault: Fault, work: Path, after: int = 2, ends: bool = True) -> None:
        """
        Let `fault` happen once the running attempt in `work` has made `after` steps of progress, and wait until there
        is more: in a later attempt where the fault `ends` this one, else in the same.
        """
        path = self.project.path(work)
        self.command.wait_for(lambda: progressing(path, after), f"{after} steps of progress in {work}")
        attempt, count = attempts(path)[-1], len(attempts(path))
        begin, durable, done = time.monotonic(), commits(path), batches(path)
        fault(self.project, attempt)
        wanted = count + 1 if ends else count
        goes_on = lambda: len(attempts(path)) >= wanted and commits(path) > durable  # noqa: E731
        self.command.wait_for(goes_on, f"progress after {name}")
        seconds = round(time.monotonic() - begin, 1)
        assert ends or len(attempts(path)) == count, f"{name} ended an attempt: {attempts(path)}"
        assert done.items() <= batches(path).items(), f"{name}: finished batches were done again"
        self.rows.append(Row(name, stage_of(work), happened, self._lost(path, ends), seconds))

    def _lost(self, path: Path, ends: bool) -> str:
        if not ends:
            return "nothing"
        if path.name != "train":
            return "the running batch"
        steps = repeated_steps(path)[-1] if repeated_steps(path) else 0
        assert steps <= SAVE_EVERY, f"{steps} steps were done again"
        return f"{steps} steps, saved every {SAVE_EVERY}"


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
