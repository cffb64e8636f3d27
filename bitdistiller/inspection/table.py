"""The rows as a table for the terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bitdistiller.inspection.columns import COLUMNS, Column
from bitdistiller.inspection.rows import LayerRow, total
from bitdistiller.inspection.sources import Source
from bitdistiller.reporting.layer_names import place, short_kinds

WIDE = 1000
"""Columns where the output is no terminal: no line is ever folded or cut."""


def show(source: Source, rows: list[LayerRow], console: Console) -> None:
    """Print a heading, a row per layer, a row for all of them, and what the columns mean."""
    if not console.is_terminal:
        console.width = WIDE
    columns = [column for column in COLUMNS if any(column.print(row) for row in rows)]
    shown = fitting(columns, rows, console)
    quantization = source.quantization
    grid = f"{quantization.format}, groups of {quantization.group_size}, {quantization.scale_dtype} scales"
    console.print(Text(f"{source.title}; {grid}", style="bold"), Text(), grid_of(shown, rows), sep="\n")
    legend = [f"{column.heading}: {column.meaning}" for column in shown]
    left_out = [column.heading for column in columns if column not in shown]
    if left_out:
        legend.append(f"Not shown, the terminal is too narrow: {', '.join(left_out)}")
    console.print(Text(), *(Text(f"{line}.", style="dim") for line in legend), sep="\n")


def fitting(columns: list[Column], rows: list[LayerRow], console: Console) -> list[Column]:
    """The columns that fit the console's width: those of the lowest rank are left out one by one."""
    shown, unbounded = list(columns), console.options.update(width=WIDE)
    while shown and console.measure(grid_of(shown, rows), options=unbounded).maximum > console.width:
        shown.remove(min(shown, key=lambda column: column.rank))
    return shown


def grid_of(columns: list[Column], rows: list[LayerRow]) -> Table:
    """The table itself; equal block numbers below each other are dim."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading, justify in (("Block", "right"), ("Layer", "left"), ("Shape", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    places = [place(row.name) for row in rows]
    names, before = short_kinds(rest for _, rest in places), None
    for row, (block, rest) in zip(rows, places, strict=True):
        number = Text(str(block), style="dim" if block == before else "")
        shape = f"{row.out_features}×{row.in_features}"
        cells = [number, names[rest], shape, *(column.print(row) for column in columns)]
        table.add_row(*cells, end_section=row is rows[-1])
        before = block
    everything = total(rows)
    size = f"{everything.weights / 1e6:.2f} M"
    table.add_row("all", "", size, *(column.print(everything) for column in columns), style="bold")
    return table


def as_csv(rows: list[LayerRow]) -> str:
    """One line per layer with every column of LayerRow; `code_shares` are joined by blanks."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in fields(LayerRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shares = {} if row.code_shares is None else {"code_shares": " ".join(map(str, row.code_shares))}
        writer.writerow(asdict(row) | shares)
    return buffer.getvalue()


def as_json(source: Source, rows: list[LayerRow]) -> dict[str, Any]:
    """What the table shows, for machines: every column of LayerRow, None where it is not known."""
    return {
        "kind": source.title,
        "quantization": source.quantization.model_dump(mode="json"),
        "layers": [asdict(row) for row in rows],
        "total": asdict(total(rows)),
    }
