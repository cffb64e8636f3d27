"""The clip searches as small tables: a row per layer, or per kind of projection where there are many."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bitdistiller.reporting.layer_names import short_kinds
from bitdistiller.reporting.markdown import escape, pipe_table

MOST_ROWS = 24
"""Layers from which on a table has one row per kind of projection."""
NOTHING = "No clip search has finished."
HEADINGS = ("Block", "Layer", "Error before", "Error after", "Left", "Max kept", "Min kept")
NOTE = (
    "Error: mean squared change of the layer's output over calibration tokens and output features, averaged over the "
    "layers of a row; left: error after / error before; kept: mean share of the groups' maxima and minima."
)


@dataclass(frozen=True)
class ClipTable:
    """One search; every row is as many texts as `HEADINGS`, the last row is the total."""

    title: str
    rows: tuple[tuple[str, ...], ...]


def clip_tables(clips: pd.DataFrame) -> list[ClipTable]:
    """A table for every search of `clips`, columns as in `clip_reports.COLUMNS`."""
    return [_table(group) for _, group in clips.groupby(["model", "clip"], sort=False)]


def render(tables: list[ClipTable]) -> str:
    """All tables as Markdown, with a final newline."""
    alignments = [name != "Layer" for name in HEADINGS]
    parts = ["### Clip search: error before and after"]
    for table in tables:
        parts += [f"**{escape(table.title)}**", pipe_table([HEADINGS, *map(_escaped, table.rows)], alignments)]
    return "\n\n".join([*parts, escape(NOTE) if tables else NOTHING]) + "\n"


def title_of(group: pd.DataFrame) -> str:
    """Which search the rows belong to: model, format, group size, calibration."""
    first = group.iloc[0]
    return f"{first['model_title']}, {first['format']} g{first['group_size']}, calibration {first['calibration']}"


def _table(group: pd.DataFrame) -> ClipTable:
    names = short_kinds(group["kind"])
    if len(group) <= MOST_ROWS:
        rows = [_row(str(row["block"].iloc[0]), names[row["kind"].iloc[0]], row) for row in _one_by_one(group)]
    else:
        kinds = group.groupby("kind", sort=False)
        rows = [_row(_blocks(rows), names[str(kind)], rows) for kind, rows in kinds]
    return ClipTable(title_of(group), (*rows, _row("all", "all", group)))


def _one_by_one(group: pd.DataFrame) -> list[pd.DataFrame]:
    return [group.iloc[index : index + 1] for index in range(len(group))]


def _blocks(rows: pd.DataFrame) -> str:
    first, last = rows["block"].min(), rows["block"].max()
    return str(first) if first == last else f"{first}–{last}"


def _row(block: str, name: str, rows: pd.DataFrame) -> tuple[str, ...]:
    before, after = (float(rows[column].mean()) for column in ("error_before", "error_after"))
    kept = [
        (rows[column] * rows["groups"]).sum() / rows["groups"].sum() for column in ("maximum_ratio", "minimum_ratio")
    ]
    left = f"{100 * after / before:.1f} %" if before else "—"
    return (block, name, f"{before:.3g}", f"{after:.3g}", left, *(f"{share:.3f}" for share in kept))


def _escaped(row: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(escape, row))
