"""The columns of the table: heading, how a value is printed, what it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from bitdistiller.inspection.rows import LayerRow


@dataclass(frozen=True)
class Column:
    """`name` is an attribute of LayerRow; columns of lower `rank` are left out first where a terminal is narrow."""

    name: str
    heading: str
    meaning: str
    rank: int
    text: Callable[[float], str]

    def print(self, row: LayerRow) -> str:
        """The cell of a row; empty where the value is not known."""
        value = attrgetter(self.name)(row)
        return "" if value is None else self.text(value)


def _number(digits: int) -> Callable[[float], str]:
    return lambda value: f"{value:.{digits}f}"


def _significant(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


COLUMNS = (
    Column("std", "Std", "standard deviation of the weights", 3, _significant),
    Column("absolute_maximum", "Max |w|", "the largest magnitude", 1, _significant),
    Column("kurtosis", "Kurt", "kurtosis, 3 for normal weights; more means heavier tails", 2, _number(1)),
    Column("peak", "Peak", "mean over groups of max |w| / rms: a step of the grid grows with it", 5, _number(2)),
    Column("one_sign", "1-sign %", "groups whose weights have one sign", 0, _percent),
    Column("maximum_kept", "Max kept", "mean share of the groups' maxima that clipping kept", 8, _number(3)),
    Column("minimum_kept", "Min kept", "the same of their minima", 8, _number(3)),
    Column("error_unclipped", "Error RTN", "||w_hat - w||² / ||w||² without clipping", 4, _number(4)),
    Column("error", "Error", "||w_hat - w||² / ||w||² of the weight as it is used", 9, _number(4)),
    Column(
        "output_error_before",
        "Out before",
        "squared change of the output, not clipped; all: the sum",
        9,
        _significant,
    ),
    Column("output_error_after", "Out after", "the same, clipped", 9, _significant),
    Column("entropy", "Entropy", "of the codes, in bits; low where few codes are used", 6, _number(2)),
    Column("bits_per_weight", "Bits/w", "codes, scales and zero points", 7, _number(2)),
)
