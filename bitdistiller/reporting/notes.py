"""Footnotes of a table, and the lines that hold for all of it."""

from __future__ import annotations

import string
from typing import Any

import pandas as pd

from bitdistiller.config import Experiment
from bitdistiller.reporting.collect import Collected
from bitdistiller.reporting.runs import RunIdentity, column, label
from bitdistiller.reporting.tables import Column, Row

DIFFERENCES = (
    "Δ: ours less the paper's ± its standard error, which counts the paper's sampling as binomial where its n is "
    "known, and ours alone elsewhere."
)


class Footnotes:
    """Gives each distinct text a letter, in order of appearance."""

    def __init__(self) -> None:
        self.listed: list[tuple[str, str]] = []

    def add(self, text: str) -> str:
        """The letter of `text`."""
        for mark, known in self.listed:
            if known == text:
                return mark
        index = len(self.listed)
        letters = string.ascii_lowercase
        mark = letters[index % 26] * (1 + index // 26)
        self.listed.append((mark, text))
        return mark


def items_note(n: int | None, total: int | None, unit: str) -> str:
    """For a cell that averages over another number of items than its column."""
    if n is None:
        return "n is not recorded"
    return f"n = {n}{items_of(n, total)} {unit}".rstrip()


def items_of(n: int, total: int | None) -> str:
    """` of 1319` where not all items were taken."""
    return f" of {total}" if total is not None and not pd.isna(total) and total > n else ""


def protocol_difference(
    experiment: Experiment, collected: Collected, compared: list[RunIdentity], evaluation: str
) -> str:
    """One sentence on where our protocol differs from the paper's for the runs that are compared, or an empty text."""
    published, name = collected.published, column(experiment, evaluation).published
    ours, theirs = [], []
    for entry in published.protocol(name) if published and name else []:
        values = _our_values(experiment, collected, compared, evaluation, entry.key)
        if not all(_equal(value, entry.value) for value in values):
            ours.append(" or ".join(_in_words(entry.key, value, collected, evaluation) for value in values))
            theirs.append(entry.text)
    if not ours:
        return ""
    return f"{label(experiment, evaluation)}: ours {', '.join(ours)}; the paper's {', '.join(theirs)}"


def _our_values(
    experiment: Experiment, collected: Collected, compared: list[RunIdentity], evaluation: str, key: str
) -> list[Any]:
    """The values of one protocol entry over the runs compared: as recorded, else as configured."""
    if key == "n":
        rows = _measured(collected, evaluation)
        return sorted({int(n) for n in rows[rows["run"].isin([i.run for i in compared])]["n"].dropna()})
    configured = getattr(column(experiment, evaluation), key, None)
    values = [collected.protocols.get((i.run, evaluation), {}).get(key, configured) for i in compared]
    return sorted({value for value in values if isinstance(value, (int, float, str))}, key=str)


def _equal(value: Any, text: str) -> bool:
    try:
        return float(value) == float(text)
    except ValueError:
        return str(value) == text


def _in_words(key: str, value: Any, collected: Collected, evaluation: str) -> str:
    if key == "temperature":
        return f"sampled at temperature {value:g}" if value else "greedy"
    if key == "n":
        return f"{value} {next(iter(_measured(collected, evaluation)['unit']), '')}".rstrip()
    if key == "special_tokens":
        return "a BOS token before the text" if value else "no BOS token"
    shapes = {"chunk_length": "{}-token chunks", "few_shot": "{}-shot", "metric": "{}"}
    shapes |= {"scoring": "{} scoring", "lm_eval": "lm-eval {}"}
    return shapes.get(key, key.replace("_", " ") + " {}").format(value)


def general_notes(collected: Collected, columns: list[Column], rows: list[Row]) -> list[str]:
    """The lines under the table: how to read it, n of each column, group size, source of the published numbers."""
    cells = [cell for row in rows for cell in row.cells]
    notes = ["Value ± standard error, accuracies in percent; bold is the best of its bit width (16-bit apart)."]
    counts = [text for text in (_count(collected, column) for column in columns) if text]
    if counts:
        notes.append(f"n: {'; '.join(counts)}.")
    sizes = sorted({row.identity.group_size for row in rows if row.identity.group_size})
    if sizes:
        notes.append(f"Bits/weight as stored, scales and zero points included. {_group_sizes(sizes)}")
    sources = sorted({cell.published.source for cell in cells if cell.published})
    if sources:
        notes.append(f"Columns headed “paper”: published numbers, {'; '.join(sources)}.")
    if any(cell.difference for cell in cells):
        notes.append(DIFFERENCES)
    if any(cell.status == "pending" for cell in cells):
        notes.append("Pending: this evaluation has not finished.")
    if any(cell.status == "absent" for cell in cells):
        notes.append("Blank: not part of that run.")
    return notes


def _group_sizes(sizes: list[int]) -> str:
    if len(sizes) == 1:
        return f"Groups of {sizes[0]} weights."
    return "g: weights per group."


def _count(collected: Collected, column: Column) -> str:
    measured = _measured(collected, column.evaluation)
    counts = sorted({int(n) for n in measured["n"].dropna()})
    if not counts:
        return ""
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    span += items_of(counts[-1], measured["total"].max())
    return f"{column.label} {span} {next(iter(measured['unit']), '')}".rstrip()


def _measured(collected: Collected, evaluation: str) -> pd.DataFrame:
    frame = collected.frame
    return frame[frame["main"] & (frame["evaluation"] == evaluation) & frame["value"].notna()]
