"""One row per layer, and the row that sums them up."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from torch import Tensor

from bitdistiller.inspection import statistics
from bitdistiller.inspection.statistics import Kept


@dataclass(frozen=True)
class LayerRow:
    """What is known of a layer; None where the source cannot say. Definitions: docs/method.md 8."""

    name: str
    out_features: int
    in_features: int
    weights: int
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    kurtosis: float | None = None
    peak: float | None = None
    one_sign: float | None = None
    maximum_kept: float | None = None
    maximum_kept_low: float | None = None
    maximum_kept_high: float | None = None
    minimum_kept: float | None = None
    minimum_kept_low: float | None = None
    minimum_kept_high: float | None = None
    error_unclipped: float | None = None
    """`||w_hat - w||^2 / ||w||^2` without clipping."""
    error: float | None = None
    """The same of the weight as it is used, clipped where there are ranges."""
    energy: float | None = None
    """`||w||^2` of the weight that the errors are relative to."""
    output_error_before: float | None = None
    output_error_after: float | None = None
    entropy: float | None = None
    code_shares: tuple[float, ...] | None = None
    bits_per_weight: float | None = None

    @property
    def absolute_maximum(self) -> float | None:
        """The largest magnitude."""
        return None if self.minimum is None or self.maximum is None else max(-self.minimum, self.maximum)


EXTREMES = {"minimum": min, "maximum": max}
NO_TOTAL = ("maximum_kept_low", "maximum_kept_high", "minimum_kept_low", "minimum_kept_high")


def weight_columns(weight: Tensor, group_size: int) -> dict[str, float | None]:
    """Columns that describe a weight (out, in) by itself."""
    return {
        **statistics.moments(weight)._asdict(),
        "peak": statistics.peak(weight, group_size),
        "one_sign": statistics.one_sign_share(weight, group_size),
    }


def code_columns(codes: Tensor, bits: int) -> dict[str, object]:
    """Columns that say how the codes are used."""
    shares = statistics.code_shares(codes, bits)
    return {"code_shares": shares, "entropy": statistics.entropy(shares)}


def kept_columns(maximum: Kept, minimum: Kept) -> dict[str, float]:
    """Columns of the shares of both ends that were kept."""
    ends = {"maximum_kept": maximum, "minimum_kept": minimum}
    return {
        f"{name}{suffix}": value
        for name, kept in ends.items()
        for suffix, value in zip(("", "_low", "_high"), kept, strict=True)
    }


def relative(error: float, energy: float) -> float | None:
    """`error / energy`; of a weight of zeros 0 when it is met exactly, else None."""
    return error / energy if energy else (0.0 if error == 0 else None)


def total(rows: list[LayerRow]) -> LayerRow:
    """All rows as one: extremes of extremes, sums of output errors, and means weighted by numbers of weights.

    The relative errors are weighted by `energy`, which makes them those of all weights together; the standard deviation
    is that of all weights together too. Rows that lack a value do not count for it.
    """
    values: dict[str, object] = {
        field.name: _total(field.name, rows) for field in fields(LayerRow) if field.default is None
    }
    if values["std"] is not None:
        second = [row.std**2 + row.mean**2 for row in rows]
        values["std"] = math.sqrt(max(0.0, _mean(second, [row.weights for row in rows]) - values["mean"] ** 2))
    return LayerRow("all", 0, 0, sum(row.weights for row in rows), **values)


def _total(name: str, rows: list[LayerRow]) -> object:
    known = [row for row in rows if getattr(row, name) is not None]
    if not known or name in NO_TOTAL:
        return None
    values, weights = [getattr(row, name) for row in known], [row.weights for row in known]
    if name in EXTREMES:
        return EXTREMES[name](values)
    if name in ("energy", "output_error_before", "output_error_after"):
        return sum(values)
    if name.startswith("error"):
        energies = [row.energy for row in known]
        return _mean(values, energies) if sum(energies) else 0.0
    if name == "code_shares":
        return tuple(_mean(list(column), weights) for column in zip(*values, strict=True))
    return _mean(values, weights)


def _mean(values: list[float], weights: list[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
