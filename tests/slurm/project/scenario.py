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
from slurm.project.project import Project
from slurm.project.work import attempts, commits, units_done

Fault = Callable[[Project, dict[str, Any]], None]


@dataclass(frozen=True)
class Row:
    """One line of the table: what happened, and what it cost."""

    fault: str
    stage: str
    happened: str
    lost: str
    """Units of work that were done twice, and at most."""
    seconds: float
    """From the fault to the next durable step of progress."""


class Scenario:
    """A running command, the faults that are struck, and their rows."""

    def __init__(self, project: Project, command: Command, rows: list[Row]) -> None:
        self.project, self.command, self.rows = project, command, rows

    def strike(self, name: str, fault: Fault, work: Path, after: int = 2, happened: str = "", again: bool = True) -> None:
        """
        Let `fault` happen once the running attempt in `work` has made `after` steps of progress, and wait until there
        is more: in another attempt or, where not `again`, in the same one.
        """
        path = self.project.path(work)
        self.command.wait_for(lambda: progressing(path, after), f"{after} steps of progress in {work}")
        attempt, count = attempts(path)[-1], len(attempts(path))
        begin, durable, done = time.monotonic(), commits(path), units_done(path)
        fault(self.project, attempt)
        wanted = count + 1 if again else count
        self.command.wait_for(
            lambda: len(attempts(path)) >= wanted and commits(path) > durable, f"progress after {name}"
        )
        seconds = time.monotonic() - begin
        assert again or len(attempts(path)) == count, f"{name} ended an attempt: {attempts(path)}"
        kept = units_done(path)
        assert done.items() <= kept.items(), f"{name}: finished units were done again"
        self.rows.append(Row(name, path_stage(work), happened, "", round(seconds, 1)))


def progressing(work: Path, after: int) -> bool:
    """Whether the last attempt runs and has made `after` steps of progress."""
    history = attempts(work)
    if not history or "outcome" in history[-1] or not runs(history[-1]["pid"]):
        return False
    return commits(work) >= history[-1]["commits_before"] + after


def path_stage(work: Path) -> str:
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
