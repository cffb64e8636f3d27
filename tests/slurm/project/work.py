"""What the work directories say about progress and about work done twice."""

from __future__ import annotations

import itertools
from pathlib import Path

from bitdistiller.stages.attempts import Attempts
from bitdistiller.stages.files import read_json_lines


def commits(work: Path) -> int:
    """Durable steps of progress so far."""
    return Attempts(work).commits


def attempts(work: Path) -> list[dict]:
    """One record per attempt, oldest first."""
    return Attempts(work).history()


def batches(shard: Path) -> dict[str, tuple[int, int]]:
    """Every finished batch of a shard with what changes when it is written again."""
    found = (shard / "state" / "batches").glob("[0-9]*")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def repeated_steps(train: Path) -> list[int]:
    """
    The steps that each attempt of a training after the first did again, from the history that all append to.

    Before the first step there is none: gamma is progress too.
    """
    path = train / "state" / "history.jsonl"
    lines = list(read_json_lines(path, torn=True)) if path.exists() else []
    starts = [line for line in lines if line["event"] == "start"]
    last = {line["attempt"]: line["step"] for line in lines if line["event"] == "step"}
    pairs = itertools.pairwise(starts)
    return [max(0, last.get(before["attempt"], before["done"]) - after["done"]) for before, after in pairs]


def repeated_batches(shard: Path) -> int:
    """Batches that were finished more than once; one that was cut short is not among them."""
    return commits(shard) - len(batches(shard))
