"""A table for the terminal."""

from __future__ import annotations

import os
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.table import Table as Grid
from rich.text import Text

from bitdistiller.config import Experiment
from bitdistiller.plan import Plan
from bitdistiller.reporting.build import build_table
from bitdistiller.reporting.collect import collect
from bitdistiller.reporting.cost import cost_frame, training_hours
from bitdistiller.reporting.tables import Cell, Column, Table

FILE_WIDTH = 120
"""Columns where the output is no terminal."""
STATUS = {"pending": "pending", "unavailable": "n/a", "absent": ""}


FILES = (
    ("page", "report.html"),
    ("table", "main.html"),
    ("plots", "perplexity_vs_bits.svg"),
    ("", "training_curves.svg"),
    ("", "clip_error.svg"),
    ("data", "main.csv"),
)


def show_results(experiment: Experiment, results: Path, console: Console | None = None) -> None:
    """Print the table of what is finished now, and the paths of those files that `tabulate` has written."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    plan = Plan(experiment, Path(results))
    console.print(render(build_table(experiment, collect(experiment, results), training_hours(cost_frame(plan)))))
    tables = plan.tables
    places = [(label, tables / name) for label, name in FILES] + [("report", Path(results) / "report.html")]
    lines = [Text(f"{label:<7}{path}") for label, path in places if path.is_file()]
    if lines:
        console.print(Text(), *lines, sep="\n", soft_wrap=True)


def show_after_run(experiment: Experiment, results: Path) -> None:
    """What a workflow prints at its end; a caller that prints the table itself sets BITDISTILLER_TABLE=no."""
    if os.environ.get("BITDISTILLER_TABLE") != "no":
        show_results(experiment, results)


def render(table: Table) -> Group:
    """Something a rich Console prints: heading, coverage, table, footnotes."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    if len(table.sections) > 1:
        grid.add_column("Model", overflow="fold")
    for name, justify in (("Bits", "right"), ("Method", "left"), ("Format", "left"), ("Bits/w", "right")):
        grid.add_column(name, justify=justify, no_wrap=True)
    for column in table.columns:
        _add_columns(grid, column)
    for name in table.training:
        grid.add_column(Text(name), justify="right", style="dim")
    for section in table.sections:
        _add_section(grid, section.title, section.bit_widths, table)
    small = [*(f"{mark}  {text}." for mark, text in table.footnotes), *table.notes]
    heading = Text(table.title, style="bold")
    return Group(heading, Text(table.coverage), Text(), grid, Text(), *(Text(line, style="dim") for line in small))


def _add_columns(grid: Grid, column: Column) -> None:
    grid.add_column(Text(f"{column.label} {column.arrow}"), justify="right")
    if column.has_published:
        grid.add_column(Text(f"paper{f' [{column.mark}]' if column.mark else ''}"), justify="right", style="dim")
        grid.add_column("Δ", justify="right", style="dim")


def _add_section(grid: Grid, title: str, bit_widths: tuple, table: Table) -> None:
    for bits, rows in bit_widths:
        width = str(bits)
        for row in rows:
            texts = [Text(title)] if len(table.sections) > 1 else []
            texts += [Text(width), Text(row.method), Text(row.format), Text(row.bits_per_weight)]
            for cell, column in zip(row.cells, table.columns, strict=True):
                texts += [_cell(cell), *([_published(cell), _difference(cell)] if column.has_published else [])]
            texts += map(Text, row.training)
            title = width = ""
            grid.add_row(*texts, end_section=row is rows[-1])


def _cell(cell: Cell) -> Text:
    text = Text(STATUS.get(cell.status, ""), style="dim")
    if cell.value is not None:
        text = Text(cell.value.plain, style="bold" if cell.best else "")
        text.append(f" ± {cell.error.plain}" if cell.error else "", style="not bold dim")
    return text.append(f" [{cell.mark}]" if cell.mark else "", style="not bold dim")


def _published(cell: Cell) -> Text:
    return Text(cell.published.text if cell.published else "")


def _difference(cell: Cell) -> Text:
    if cell.difference is None:
        return Text()
    return Text(cell.difference.plain + (f" ± {cell.difference_error.plain}" if cell.difference_error else ""))
