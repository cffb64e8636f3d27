"""How the sequences of a step lie in rows, and the rows in micro-batches: pure functions of lengths."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Layout = Literal["packed", "grouped", "padded"]
Row = tuple[int, ...]
MicroBatch = tuple[Row, ...]


@dataclass(frozen=True)
class Limits:
    """At most `rows` rows of `width` tokens in a micro-batch; every one of `processes` gets equally many."""

    rows: int
    width: int
    processes: int = 1


def padded(lengths: list[int], limits: Limits) -> list[MicroBatch]:
    """The reference: one sequence a row, as drawn."""
    return _cut([(index,) for index in range(len(lengths))], limits)


def grouped(lengths: list[int], limits: Limits) -> list[MicroBatch]:
    """One sequence a row, sorted by length from the longest down, so that rows of a micro-batch are alike."""
    return _spread([(index,) for index in _by_length(lengths)], limits)


def packed(lengths: list[int], limits: Limits) -> list[MicroBatch]:
    """
    Several sequences a row of at most `limits.width` tokens, in as few rows as best fit decreasing needs.

    Rounded up to a multiple of the processes, as many rows are then filled evenly (the longest sequence left goes into
    the emptiest row), which leaves less to pad and the processes equal work; where a sequence then fits nowhere, the
    rows of best fit stay.
    """
    if not lengths:
        return []
    tight = best_fit(lengths, limits.width)
    count = math.ceil(len(tight) / limits.processes) * limits.processes
    rows = even_fit(lengths, limits.width, min(count, len(lengths))) or tight
    load = [sum(lengths[index] for index in row) for row in rows]
    return _spread([rows[row] for row in _by_length(load)], limits)


LAYOUTS: dict[str, Callable[[list[int], Limits], list[MicroBatch]]] = {
    "packed": packed,
    "grouped": grouped,
    "padded": padded,
}


def best_fit(lengths: list[int], width: int) -> list[Row]:
    """Longest first, each into the fullest row that still takes it; a row holds at most `width` tokens."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []
    for index in _by_length(lengths):
        place = bisect.bisect_left(free, (lengths[index], -1))
        if place == len(free):
            rows.append([])
            room, row = width, len(rows) - 1
        else:
            room, row = free.pop(place)
        rows[row].append(index)
        bisect.insort(free, (room - lengths[index], row))
    return [tuple(row) for row in rows]


def even_fit(lengths: list[int], width: int, count: int) -> list[Row] | None:
    """Longest first, each into the emptiest of `count` rows; None where a row would exceed `width` tokens."""
    rows: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, row) for row in range(count)]
    for index in _by_length(lengths):
        load, row = loads[0]
        if load + lengths[index] > width:
            return None
        heapq.heapreplace(loads, (load + lengths[index], row))
        rows[row].append(index)
    return [tuple(row) for row in rows]


def deal(micro_batches: list[MicroBatch], processes: int) -> list[list[MicroBatch]]:
    """
    The micro-batches of every process, equally many for each: `()` fills up.

    They are dealt back and forth, so that with micro-batches in order of size no process gets the larger one each time.
    """
    rounds = math.ceil(len(micro_batches) / processes)
    filled = micro_batches + [()] * (rounds * processes - len(micro_batches))
    hands: list[list[MicroBatch]] = [[] for _ in range(processes)]
    for turn in range(rounds):
        part = filled[turn * processes : (turn + 1) * processes]
        for process, micro_batch in enumerate(part[::-1] if turn % 2 else part):
            hands[process].append(micro_batch)
    return hands


def _by_length(lengths: list[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))


def _cut(rows: list[Row], limits: Limits) -> list[MicroBatch]:
    size = max(1, min(limits.rows, math.ceil(len(rows) / limits.processes)))
    return [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]


def _spread(rows: list[Row], limits: Limits) -> list[MicroBatch]:
    count = math.ceil(len(rows) / (limits.rows * limits.processes)) * limits.processes
    count = min(count, len(rows))
    ends = [len(rows) * (part + 1) // count for part in range(count)] if count else []
    return [tuple(rows[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
