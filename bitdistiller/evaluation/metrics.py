"""Metrics with their standard error and n, as they stand in `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Metric = dict[str, Any]


def measured(
    value: float | None,
    standard_error: float | None,
    n: int,
    unit: str,
    higher_is_better: bool,
    quantity: str | None = None,
) -> Metric:
    """
    One metric; fractions are in 0..1. The standard error of a single item is None.

    quantity: how the value is printed, where that does not follow from the kind of evaluation: fraction, nats.
    """
    metric = {
        "value": value,
        "standard_error": standard_error,
        "n": n,
        "unit": unit,
        "higher_is_better": higher_is_better,
    }
    return metric | ({"quantity": quantity} if quantity else {})


def unmeasured(reason: str, n: int, unit: str, higher_is_better: bool) -> Metric:
    """A metric that could not be measured, and why."""
    return measured(None, None, n, unit, higher_is_better) | {"reason": reason}


def proportion(outcomes: Sequence[float], unit: str) -> Metric:
    """The share of successes (0 or 1 each), with the standard error of the mean."""
    return measured(mean(outcomes), standard_error(outcomes), len(outcomes), unit, higher_is_better=True)


def perplexity(losses: Sequence[float | None], unit: str, tokens: Sequence[int] | None = None) -> Metric:
    """
    exp of the mean of `losses` (nats per token, one per chunk; None where it was not finite), weighted by `tokens`.

    tokens: predicted tokens of each chunk; None where all chunks have as many. The standard error is that of the mean
    times the perplexity (delta method).
    """
    broken = _not_finite(losses, "loss", unit)
    if broken:
        return unmeasured(broken, len(losses), unit, higher_is_better=False)
    average = mean(losses) if tokens is None else weighted_mean(losses, tokens)
    error = standard_error(losses) if tokens is None else weighted_standard_error(losses, tokens)
    value = math.exp(average)
    error = None if error is None else value * error
    return measured(value, error, len(losses), unit, higher_is_better=False)


def divergence(values: Sequence[float | None], unit: str) -> Metric:
    """The mean of divergences in nats per token, one per chunk of equal length; None where it was not finite."""
    broken = _not_finite(values, "divergence", unit)
    if broken:
        return unmeasured(broken, len(values), unit, higher_is_better=False)
    error = standard_error(values)
    return measured(mean(values), error, len(values), unit, higher_is_better=False, quantity="nats")


def _not_finite(values: Sequence[float | None], what: str, unit: str) -> str:
    missing = sum(value is None for value in values)
    return f"the {what} of {missing} of {len(values)} {unit} is not finite" if missing else ""


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


def weighted_mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """Sum of weights times values over the sum of weights."""
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def weighted_standard_error(values: Sequence[float], weights: Sequence[int]) -> float | None:
    """The standard error of `weighted_mean` as a ratio of two sums over n items; None for fewer than two of them."""
    n = len(values)
    if n < 2:
        return None
    centre = weighted_mean(values, weights)
    squares = math.fsum((w * (v - centre)) ** 2 for w, v in zip(weights, values, strict=True))
    return math.sqrt(squares * n / (n - 1)) / sum(weights)
