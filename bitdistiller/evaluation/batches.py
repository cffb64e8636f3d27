"""Work in fixed batches: each is durable before the next begins, and is never done twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bitdistiller.stages import Stage
from bitdistiller.stages.files import append_json_line, read_json_lines

Item = TypeVar("Item")
Record = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """The part of the batches that is done here: shard `index` of `count`, a range of them as long as the others."""

    index: int
    count: int

    def of(self, batches: int) -> range:
        """Numbers of its batches among so many."""
        return range(batches * self.index // self.count, batches * (self.index + 1) // self.count)


class PartDone(Exception):
    """A shard's batches are done: `records` by number, of `total` batches; what follows needs all of them."""

    def __init__(self, name: str, total: int, records: dict[int, list[Record]]) -> None:
        super().__init__(name)
        self.name, self.total, self.records = name, total, records


def slices(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive slices of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def total(taken: int, all_items: int) -> Record:
    """What a protocol says where an evaluation takes only a part of the items that there are."""
    return {"total_items": all_items} if taken < all_items else {}


def in_batches(
    stage: Stage,
    name: str,
    batches: Sequence[Sequence[Item]],
    work: Callable[[Sequence[Item]], list[Record]],
    unit: str,
) -> list[Record]:
    """
    The records of all batches, in order; `work` turns a batch into records (JSON values).

    Finished batches stand in `<name>.jsonl` of the stage's work directory, one line each, and are read back by the next
    attempt. Raises DeadlineReached between batches when the time budget is nearly used, and PartDone when this is a
    shard's stage (`sharding.StageOfShard`) and its batches are done.
    """
    share: Share | None = getattr(stage, "share", None)
    wanted = range(len(batches)) if share is None else share.of(len(batches))
    path = stage.work / f"{name}.jsonl"
    lines = read_json_lines(path, torn=True) if path.exists() else ()
    done = {line["batch"]: line["records"] for line in lines}
    before = sum(len(batches[index]) for index in done)
    with stage.progress(name, sum(len(batches[index]) for index in wanted), before, unit) as bar:
        for index in wanted:
            if index in done:
                continue
            stage.deadline.check()
            batch = batches[index]
            done[index] = work(batch)
            append_json_line(path, {"batch": index, "records": done[index]})
            stage.commit()
            bar.advance(len(batch))
    if share is not None:
        raise PartDone(name, len(batches), done)
    return [record for index in range(len(batches)) for record in done[index]]
