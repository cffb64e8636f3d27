"""One evaluation divided over jobs: a shard does a range of its batches, the merge puts all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bitdistiller.errors import InputError
from bitdistiller.evaluation.batches import PartDone, Share
from bitdistiller.stages import Stage
from bitdistiller.stages.files import json_line, read_json, read_json_lines, sync, write_json, write_text

BATCHES, SHARD = "batches.jsonl", "shard.json"


@dataclass
class StageOfShard:
    """A stage, for `in_batches`, of which one shard alone is to be done."""

    stage: Stage
    share: Share

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)


def write_shard(stage: Stage, done: PartDone, context: int) -> None:
    """The outputs of a shard: the records of its batches, and which ones they are of how many."""
    path = stage.output_file(BATCHES)
    with path.open("w", encoding="utf-8") as handle:
        handle.writelines(json_line({"batch": index, "records": done.records[index]}) for index in sorted(done.records))
    sync(path)
    content = {"name": done.name, "batches": done.total, "done": sorted(done.records), "context": context}
    write_json(stage.output_file(SHARD), content)
    stage.finish(counts={"batches": len(done.records)})


def place(stage: Stage, parts: Sequence[Path]) -> int:
    """
    Put the batches of all shards where `in_batches` finds them; returns the context in tokens that they were done with.

    Raises InputError for shards of different evaluations, and where one is missing or comes twice.
    """
    shards = [read_json(part / SHARD) for part in parts]
    heads = {(shard["name"], shard["batches"], shard["context"]) for shard in shards}
    if len(heads) != 1:
        raise InputError(f"--part: {parts[0].parent}: these are shards of different evaluations; evaluate them again")
    name, count, context = heads.pop()
    found = sorted(index for shard in shards for index in shard["done"])
    if found != list(range(count)):
        twice = next((i for i, j in pairwise(found) if i == j), None)
        missing = next((i for i in range(count) if i not in found), None)
        problem = f"batch {twice} is in two of them" if twice is not None else f"batch {missing} is in none of them"
        raise InputError(f"--part: {problem}; give every shard once")
    lines = (json_line(line) for part in parts for line in read_json_lines(part / BATCHES))
    write_text(stage.work / f"{name}.jsonl", "".join(lines))
    return int(context)
