"""`bitdistiller jobs`: the queue as a table."""

from __future__ import annotations

import dataclasses
import json

from rich import box
from rich.console import Console
from rich.table import Table

from bitdistiller.cluster.queue import QueuedJob, jobs

COLUMNS = ("id", "state", "rule", "wildcards", "elapsed", "node", "reason")


def show_jobs(as_json: bool) -> None:
    """Print this user's jobs, as a table or as JSON."""
    found = jobs()
    console = Console()
    if as_json:
        console.print(json.dumps([dataclasses.asdict(job) for job in found], indent=2), soft_wrap=True, markup=False)
    else:
        console.print(table(found) if found else "no jobs", soft_wrap=not console.is_terminal)


def table(found: list[QueuedJob]) -> Table:
    """One row for each job."""
    grid = Table(*COLUMNS, box=box.SIMPLE_HEAD)
    for job in found:
        grid.add_row(*(_shown(getattr(job, column)) for column in COLUMNS))
    return grid


def _shown(text: str) -> str:
    return "" if text == "None" else text
