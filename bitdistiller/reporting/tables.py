"""The paper-shaped table, whatever it is printed as: rows bits x method per model, columns metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitdistiller.reporting.published import PublishedNumber
from bitdistiller.reporting.quantities import Quantity
from bitdistiller.reporting.runs import RunIdentity

Status = Literal["measured", "pending", "unavailable", "absent"]


@dataclass(frozen=True)
class Cell:
    """Our number with its standard error, or why there is none; the paper's number; the letter of a footnote."""

    status: Status
    value: Quantity | None = None
    error: Quantity | None = None
    raw: float | None = None
    """Perplexity or fraction, unrounded."""
    best: bool = False
    """Best of its bit width."""
    mark: str = ""
    published: PublishedNumber | None = None
    difference: Quantity | None = None
    """Ours less the paper's."""
    difference_error: Quantity | None = None
    """Its standard error."""


@dataclass(frozen=True)
class Column:
    """One evaluation. `has_published`: a cell has a published number; `mark`: the letter of a footnote on protocols."""

    evaluation: str
    label: str
    higher_is_better: bool
    has_published: bool
    mark: str = ""

    @property
    def arrow(self) -> str:
        """The direction that is better."""
        return "↑" if self.higher_is_better else "↓"


@dataclass(frozen=True)
class Row:
    """One run; `cells` are in the order of the columns."""

    identity: RunIdentity
    method: str
    format: str
    bits_per_weight: str
    cells: tuple[Cell, ...]
    training: tuple[str, ...] = ()
    """What the training took, in the order of `Table.training`; empty texts for a run without training."""


@dataclass(frozen=True)
class Section:
    """The rows of one model, by bit width from high to low."""

    title: str
    bit_widths: tuple[tuple[int, tuple[Row, ...]], ...]


@dataclass(frozen=True)
class Table:
    """Everything that is printed."""

    title: str
    coverage: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[tuple[str, str], ...]
    """(letter, text)."""
    notes: tuple[str, ...]
    """What holds for the whole table."""
    training: tuple[str, ...] = ()
    """Headings of the columns on what the trainings took: tokens, and time where the table may tell it."""

    @property
    def has_published(self) -> bool:
        """Some column has published numbers."""
        return any(column.has_published for column in self.columns)
