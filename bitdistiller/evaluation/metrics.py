"""Metrics with their standard error and n, as they stand in `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Metric = dict[str, Any]


def measured(value: float | None, standard_error: float | None, n: int, unit: str, higher_is_better: bool) -> Metric:
    """One metric; fractions are in 0..1. The standard error of a single item is None."""
    return {
        "value": value,
        "standard_error": standard_error,
        "n": n,
        "unit": unit,
        "higher_is_better": higher_is_better,
    }


def unmeasured(reason: str, n: int, unit: str, higher_is_better: bool) -> Metric:
    """A metric that could not be measured, and why."""
    return measured(None, None, n, unit, higher_is_better) | {"reason": reason}


def proportion(outcomes: Sequence[float], unit: str) -> Metric:
    """The share of successes (0 or 1 each), with the standard error of the mean."""
    return measured(mean(outcomes), standard_error(outcomes), len(outcomes), unit, higher_is_better=True)


def perplexity(losses: Sequence[float | None], unit: str) -> Metric:
    """
    exp of the mean of `losses` (nats per token, one per chunk of equal length; None where it was not finite).

    The standard error is that of the mean times the perplexity (delta method).
    """
    finite = [loss for loss in losses if loss is not None]
    if len(finite) < len(losses):
        reason = f"the loss of {len(losses) - len(finite)} of {len(losses)} {unit} is not finite"
        return unmeasured(reason, len(losses), unit, higher_is_better=False)
    value = math.exp(mean(finite))
    error = standard_error(finite)
    return measured(value, None if error is None else value * error, len(finite), unit, higher_is_better=False)


def mean(values: Sequence[float]) -> float:
    """The mean, summed exactly."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean with n - 1 degrees of freedom; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1) / n)
