"""Speeds as a table in the terminal, as rows, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bitdistiller.evaluation.speed import Speed


def table(speeds: Sequence[Speed], machine: str) -> Group:
    """Something a rich Console prints; ratios are to the second model."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("Model", overflow="fold")
    for name in ("prefill tokens/s", "decode tokens/s", "ms/token", "in memory", "on disk", "KV cache", "peak", "load"):
        grid.add_column(name, justify="right", no_wrap=True)
    for speed in speeds:
        grid.add_row(speed.name, *_cells(speed))
    load = speeds[0].load
    lines = [
        f"Batch {load.batch}, {load.prompt_tokens} prompt tokens, {load.new_tokens} new tokens, greedy; median of "
        f"{load.repeats} repetitions in turns, ± the largest deviation. {machine}.",
        "In memory: parameters and buffers; weights of this many bytes are read for every token.",
        "KV cache: after the last token.",
    ]
    if len(speeds) > 1:
        one, other = speeds
        ratios = (one.prefill_rate / other.prefill_rate, one.decode_rate / other.decode_rate)
        lines.insert(0, "First beside second: prefill {:.2f}x, decode {:.2f}x.".format(*ratios))
    return Group(grid, Text(), *(Text(line, style="dim") for line in lines))


def _cells(speed: Speed) -> list[str]:
    def rate(value: float, seconds: Sequence[float]) -> str:
        return f"{value:,.1f} ± {100 * speed.spread(seconds):.0f} %"

    peak = _mb(speed.peak) if speed.peak is not None else "-"
    rates = [rate(speed.prefill_rate, speed.prefill), rate(speed.decode_rate, speed.decode)]
    sizes = map(_mb, (speed.memory, speed.disk, speed.cache))
    return [*rates, f"{speed.token_milliseconds:.2f}", *sizes, peak, _load(speed)]


def _load(speed: Speed) -> str:
    return f"{speed.seconds_to_load:.1f} s"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def as_rows(speeds: Sequence[Speed], machine: str) -> list[dict[str, Any]]:
    """Every number, in tokens a second, milliseconds, bytes and seconds."""
    return [
        {
            "model": speed.name,
            "batch": speed.load.batch,
            "prompt_tokens": speed.load.prompt_tokens,
            "new_tokens": speed.load.new_tokens,
            "prefill_tokens_per_second": speed.prefill_rate,
            "decode_tokens_per_second": speed.decode_rate,
            "milliseconds_per_token": speed.token_milliseconds,
            "memory_bytes": speed.memory,
            "disk_bytes": speed.disk,
            "cache_bytes": speed.cache,
            "peak_bytes": speed.peak,
            "seconds_to_load": speed.seconds_to_load,
            "machine": machine,
        }
        for speed in speeds
    ]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
