"""From what was collected to the paper-shaped table."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import groupby

import pandas as pd

from bitdistiller.config import Experiment
from bitdistiller.reporting import quantities
from bitdistiller.reporting.collect import Collected
from bitdistiller.reporting.history import training_tokens
from bitdistiller.reporting.notes import Footnotes, general_notes, items_note, protocol_difference
from bitdistiller.reporting.published import PublishedNumber
from bitdistiller.reporting.runs import LOWER_IS_BETTER, RunIdentity, column, in_table_order, label
from bitdistiller.reporting.tables import Cell, Column, Row, Section, Table
from bitdistiller.reporting.tidy import published_number

TIME = "Train time: wall time of a run's own training or calibration, h:mm:ss; the data that runs share is not in it."
THEIRS = "Rows without a number of ours are the paper's, of methods that have no run here."


def build_table(experiment: Experiment, collected: Collected, hours: dict[str, float] | None = None) -> Table:
    """
    The table of an experiment; works with no finished run.

    hours: wall hours of the training of runs, as of `cost.training_hours`. They differ from one training to the next,
    so tables that must be equal for equal results are built without them.
    """
    return _Builder(experiment, collected, hours or {}).table()


class _Builder:
    def __init__(self, experiment: Experiment, collected: Collected, hours: dict[str, float]) -> None:
        self.experiment, self.collected = experiment, collected
        self.training = _training_columns(training_tokens(collected.history), hours)
        self.runs = in_table_order(experiment)
        asked = {name for identity in self.runs for name in experiment.columns_of(identity.run)}
        self.names = [name for name in (*experiment.evaluations, *experiment.averages) if name in asked]
        self.main = collected.frame[collected.frame["main"]].set_index(["run", "evaluation"])
        self.footnotes = Footnotes()

    def table(self) -> Table:
        columns = [self._column(name) for name in self.names]
        usual = {name: self._usual_n(name) for name in self.names}
        cells = {i.run: [self._cell(i, name, usual[name]) for name in self.names] for i in self.runs}
        groups = [list(group) for _, group in groupby(self.runs, key=lambda i: (i.model, i.bits))]
        for group in groups:
            for index, heading in enumerate(columns):
                _mark_best([cells[i.run] for i in group], index, heading.higher_is_better)
        rows = {i.run: self._row(i, cells[i.run]) for i in self.runs}
        others = [self._others(group) for group in groups]
        blocks = [
            (group[0], (*(rows[i.run] for i in group), *theirs)) for group, theirs in zip(groups, others, strict=True)
        ]
        return Table(
            title=self.experiment.title or f"Experiment {self.experiment.experiment}",
            coverage=self.collected.coverage.line,
            columns=tuple(columns),
            sections=_sections(blocks),
            footnotes=tuple(self.footnotes.listed),
            notes=(
                *general_notes(self.collected, columns, list(rows.values())),
                *([TIME] if "Train time" in self.training else []),
                *([THEIRS] if any(others) else []),
            ),
            training=tuple(self.training),
        )

    def _column(self, name: str) -> Column:
        of_column = self.main[self.main.index.get_level_values("evaluation") == name]
        better = set(of_column["higher_is_better"]) or {self._kind(name) not in LOWER_IS_BETTER}
        compared = [i for i in self.runs if name in self.experiment.columns_of(i.run) and self._published(i, name)]
        difference = protocol_difference(self.experiment, self.collected, compared, name) if compared else ""
        mark = self.footnotes.add(difference) if difference else ""
        return Column(name, label(self.experiment, name), better == {True}, bool(compared), mark)

    def _kind(self, name: str) -> str:
        return getattr(column(self.experiment, name), "kind", "average")

    def _published(self, identity: RunIdentity, name: str) -> PublishedNumber | None:
        return published_number(self.experiment, identity, name, self.collected.published)

    def _cell(self, identity: RunIdentity, name: str, usual_n: int | None) -> Cell:
        if name not in self.experiment.columns_of(identity.run):
            return Cell("absent")
        published = self._published(identity, name)
        if (identity.run, name) not in self.main.index:
            return Cell("pending", published=published)
        entry = self.main.loc[(identity.run, name)]
        if pd.isna(entry["value"]) and entry["reason"]:
            mark = self.footnotes.add(f"Not measured: {entry['reason'].rstrip('.')}")
            return Cell("unavailable", mark=mark, published=published)
        n = None if pd.isna(entry["n"]) else int(entry["n"])
        mark = "" if n == usual_n else self.footnotes.add(items_note(n, entry["total"], entry["unit"]))
        return replace(_measured(entry), mark=mark, published=published)

    def _others(self, group: list[RunIdentity]) -> list[Row]:
        """What the paper has of the model and bit width of `group`, and we have no run of: its rows as they are."""
        published, first = self.collected.published, group[0]
        if published is None:
            return []
        ours = {id(self._published(i, name)) for i in group for name in self.names}
        rows = []
        for place in published.rows(first.model_title, first.bits):
            numbers = [published.number(place, column(self.experiment, name).published or "") for name in self.names]
            there = [number for number in numbers if number is not None]
            if there and not any(id(number) in ours for number in there):
                cells = tuple(Cell("absent", published=number) for number in numbers)
                identity = replace(first, run="", method="", method_title=place.method, group_size=None)
                blank = ("",) * len(self.training)
                rows.append(Row(identity, place.method, place.format or "—", "—", cells, blank))
        return rows

    def _usual_n(self, name: str) -> int | None:
        measured = self.main[(self.main.index.get_level_values("evaluation") == name) & self.main["value"].notna()]
        counts = Counter(int(n) for n in measured["n"].dropna())
        return max(counts, key=lambda n: (counts[n], n)) if counts else None

    def _row(self, identity: RunIdentity, cells: list[Cell]) -> Row:
        unique = sum(_place(i) == _place(identity) for i in self.runs) == 1
        one_size = identity.group_size is None or len({i.group_size for i in self.runs if i.group_size}) == 1
        export = self.collected.exports.get(identity.run)
        return Row(
            identity,
            method=identity.method_title if unique else f"{identity.method_title} ({identity.run})",
            format=identity.format if one_size else f"{identity.format} g{identity.group_size}",
            bits_per_weight=f"{export.bits_per_weight:.2f}" if export and export.bits_per_weight is not None else "—",
            cells=tuple(cells),
            training=tuple(texts.get(identity.run, "") for texts in self.training.values()),
        )


def _training_columns(tokens: dict[str, int], hours: dict[str, float]) -> dict[str, dict[str, str]]:
    """Headings of those columns that have a text, and their texts by run."""
    columns = {
        "Train tokens": {run: quantities.count(number) for run, number in tokens.items()},
        "Train time": {run: quantities.clock(duration) for run, duration in hours.items()},
    }
    return {heading: texts for heading, texts in columns.items() if texts}


def _place(identity: RunIdentity) -> tuple[str, str, str, int | None]:
    return identity.model, identity.method_title, identity.format, identity.group_size


def _sections(blocks: list[tuple[RunIdentity, tuple[Row, ...]]]) -> tuple[Section, ...]:
    """Of blocks of one model and bit width, each with the identity of its first run."""
    return tuple(
        Section(title, tuple((first.bits, rows) for first, rows in of_model))
        for (_, title), of_model in groupby(blocks, key=lambda block: (block[0].model, block[0].model_title))
    )


def _measured(entry: pd.Series) -> Cell:
    value = math.nan if pd.isna(entry["value"]) else float(entry["value"])
    quantity = entry["quantity"]
    error = None
    if not pd.isna(entry["standard_error"]) and math.isfinite(value):
        error = quantities.standard_error(float(entry["standard_error"]), value, quantity)
    apart, of_apart = (entry[name] for name in ("difference", "difference_standard_error"))
    return Cell(
        "measured",
        value=quantities.printed(value, quantity),
        error=error,
        raw=value,
        difference=None if pd.isna(apart) else quantities.signed(float(apart), quantity),
        difference_error=None if pd.isna(of_apart) else quantities.standard_error(float(of_apart), value, quantity),
    )


def _mark_best(rows: list[list[Cell]], index: int, higher_is_better: bool) -> None:
    """Set `best` within one bit width; cells that print alike share it, and where all do, none has it."""
    measured = [row[index] for row in rows if row[index].raw is not None and not math.isnan(row[index].raw)]
    if len({cell.value for cell in measured}) < 2:
        return
    best = (max if higher_is_better else min)(measured, key=lambda cell: cell.raw).value
    for row in rows:
        row[index] = replace(row[index], best=row[index].value == best)
