"""Mixing: shards of completions become one training file with exact counts."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bitdistiller.config import Mix
from bitdistiller.errors import InputError

Record = dict[str, Any]


@dataclass
class SourceCount:
    """What became of one source's completions; wanted: None for all."""

    dataset: str
    wanted: int | None
    completed: int = 0
    duplicates: int = 0
    empty: int = 0
    mixed: int = 0

    def as_json(self) -> dict[str, Any]:
        """The counts for the digest file."""
        return dict(vars(self))


@dataclass
class Mixed:
    """The result of `mix_records`."""

    records: list[Record]
    sources: list[SourceCount] = field(default_factory=list)


def mix_records(mix: Mix, records: list[Record]) -> Mixed:
    """
    Drop duplicates and empty completions, take exactly `samples` per source (or all), shuffle with the mix's seed.

    The result does not depend on the order of `records`, so neither on the shard count. Raises InputError when a
    source has too few usable completions, unless the mix allows fewer.
    """
    counts = [SourceCount(source.dataset, source.samples) for source in mix.sources]
    seen: set[tuple[str, str]] = set()
    chosen: list[Record] = []
    for record in sorted(records, key=_order):
        count = _count_of(record, counts)
        count.completed += 1
        text = (record["prompt"], record["completion"])
        if not record["completion"].strip():
            count.empty += 1
        elif text in seen:
            count.duplicates += 1
        elif count.wanted is None or count.mixed < count.wanted:
            seen.add(text)
            count.mixed += 1
            chosen.append(record)
    _check(mix, counts)
    random.Random(mix.seed).shuffle(chosen)
    return Mixed(chosen, counts)


def _source(record: Record) -> int:
    return int(record["id"].split("-")[-2])


def _order(record: Record) -> tuple[int, int]:
    return _source(record), int(record["id"].split("-")[-1])


def _count_of(record: Record, counts: list[SourceCount]) -> SourceCount:
    index = _source(record)
    if index >= len(counts) or record["dataset"] != counts[index].dataset:
        raise InputError(f"mix: the shards belong to another mix (completion {record['id']} has no source in this one)")
    return counts[index]


def _check(mix: Mix, counts: list[SourceCount]) -> None:
    for source, count in zip(mix.sources, counts, strict=True):
        if count.wanted is not None and count.mixed < count.wanted and not mix.allow_fewer:
            raise InputError(
                f"mix: {source.dataset} has {count.mixed} usable completions of {count.completed}, {count.wanted} are "
                f"wanted ({count.empty} empty, {count.duplicates} duplicates); raise prompts or set allow_fewer: true"
            )


def check_complete(ids: list[str], dropped: int, expected: int) -> None:
    """Every prompt was completed exactly once or dropped as too long; raises InputError otherwise."""
    repeated = [name for name, times in Counter(ids).items() if times > 1]
    if repeated:
        raise InputError(
            f"mix: {len(repeated)} prompts occur in more than one shard ({repeated[0]}, ...); shards overlap"
        )
    if len(ids) + dropped != expected:
        raise InputError(
            f"mix: the shards hold {len(ids)} completions and dropped {dropped} prompts, together not the {expected} "
            "of the recipe; give every shard of this mix, and no other"
        )
