"""Published numbers (`papers/<name>.csv`) and how they were measured (`papers/<name>.protocol.csv`)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from bitdistiller.errors import InputError

PAPERS = Path(__file__).parent / "papers"
UNQUANTISED_BITS = "16"


@dataclass(frozen=True)
class PublishedNumber:
    """A number as the paper prints it: perplexity, or percent."""

    text: str
    source: str

    @property
    def value(self) -> float:
        """The number, in the paper's unit; may be NaN."""
        return float(self.text)


@dataclass(frozen=True)
class ProtocolEntry:
    """One fact of how a metric was measured: `value` to compare with ours, `text` to print."""

    key: str
    value: str
    text: str


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table; format and group size are empty where the paper does not say."""

    model: str
    method: str
    bits: int
    group_size: str
    format: str


class Published:
    """The numbers of one paper; raises InputError when there is no such file."""

    def __init__(self, name: str) -> None:
        self.name = name
        path = PAPERS / f"{name}.csv"
        if not path.is_file():
            raise InputError(f"paper: no published numbers for {name!r}; accepted: {', '.join(papers())}")
        rows = _rows(path)
        self._numbers = {_key(row): PublishedNumber(row["value"], row["source"]) for row in rows}
        self._places = list(dict.fromkeys(map(_place, rows)))
        self._protocol = _rows(path.with_suffix(".protocol.csv"))

    def find(
        self, *, model: str, metric: str, method: str, bits: int, number_format: str | None, group_size: int | None
    ) -> PublishedNumber | None:
        """
        The number for a model title, metric name, method title, bits, format and group size, where there is one.

        `number_format` None stands for the unquantised model, whose row the papers name by its data type.
        """
        start = (model.casefold(), metric)
        if number_format is None:
            return self._numbers.get((*start, "", UNQUANTISED_BITS, "", ""))
        place = (method.casefold(), str(bits), "" if group_size is None else str(group_size))
        exact = self._numbers.get((*start, *place, number_format.casefold()))
        return exact or self._numbers.get((*start, *place, ""))

    def rows(self, model: str, bits: int) -> list[PublishedRow]:
        """The quantised rows of a model, by its title, at a bit width, in the paper's order."""
        return [row for row in self._places if (row.model, row.bits) == (model.casefold(), bits)]

    def number(self, row: PublishedRow, metric: str) -> PublishedNumber | None:
        """A metric's number in one of `rows`, where there is one."""
        place = (row.method.casefold(), str(row.bits), row.group_size, row.format.casefold())
        return self._numbers.get((row.model, metric, *place))

    def protocol(self, metric: str) -> list[ProtocolEntry]:
        """What is known of how the paper measured `metric`."""
        rows = (row for row in self._protocol if row["metric"] == metric)
        return [ProtocolEntry(row["key"], row["value"], row["text"]) for row in rows]


def papers() -> list[str]:
    """The papers whose numbers are at hand."""
    return sorted(path.stem for path in PAPERS.glob("*.csv") if not path.stem.endswith(".protocol"))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _key(row: dict[str, str]) -> tuple[str, ...]:
    start = (row["model"].casefold(), row["metric"])
    if row["bits"] == UNQUANTISED_BITS:
        return (*start, "", UNQUANTISED_BITS, "", "")
    return (*start, row["method"].casefold(), row["bits"], row["group_size"], row["format"].casefold())


def _place(row: dict[str, str]) -> PublishedRow:
    return PublishedRow(row["model"].casefold(), row["method"], int(row["bits"]), row["group_size"], row["format"])
