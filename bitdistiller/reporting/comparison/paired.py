"""What is known of the difference between two runs from the same items (paired bootstrap, exact sign test)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitdistiller.errors import InputError
from bitdistiller.reporting.comparison.predictions import Predictions, require_one_protocol

RESAMPLES, CONFIDENCE, SEED = 10_000, 0.95, 0
CELLS = 2**22
"""Numbers drawn at once."""


@dataclass(frozen=True)
class Comparison:
    """
    B beside A on the items that both have.

    a, b, difference: weighted means, and B's less A's, in the unit of the outcomes (nats, or a share of 1); low, high:
    the bootstrap interval of the difference. wins: items on which B is better. p: of the exact two-sided sign test over
    wins and losses. only_a, only_b: items that the other lacks.
    """

    evaluation: str
    label: str
    kind: str
    field: str
    higher_is_better: bool
    items: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    p: float
    only_a: int
    only_b: int

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `open` where the interval holds 0."""
        if self.low <= 0 <= self.high:
            return "open"
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"


def compare(
    a: Predictions,
    b: Predictions,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> Comparison:
    """Compare two runs; raises InputError where they were not measured in the same way, or share no item."""
    require_one_protocol(a, b)
    items = [item for item in a.records if item in b.records]
    if not items:
        raise InputError(f"{a.name}: the two runs have no item in common")
    first, second = (np.array([side.value(item) for item in items]) for side in (a, b))
    weights = np.array([a.weight(item) for item in items])
    low, high = interval(second - first, weights, resamples, confidence, seed)
    better = np.sign(second - first) * (1 if a.counts.higher_is_better else -1)
    wins, losses = int((better > 0).sum()), int((better < 0).sum())
    means = [float(np.average(values, weights=weights)) for values in (first, second)]
    return Comparison(
        evaluation=a.name,
        label=a.label,
        kind=a.kind,
        field=a.field,
        higher_is_better=a.counts.higher_is_better,
        items=len(items),
        a=means[0],
        b=means[1],
        difference=float(np.average(second - first, weights=weights)),
        low=low,
        high=high,
        wins=wins,
        losses=losses,
        ties=len(items) - wins - losses,
        p=sign_test(wins, losses),
        only_a=len(a.records) - len(items),
        only_b=len(b.records) - len(items),
    )


def interval(
    differences: np.ndarray, weights: np.ndarray, resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """
    Percentile interval of the weighted mean of differences (n,) over resamples of the items.

    Items are drawn by numpy's Generator with this seed, one row of n after the other.
    """
    random, n = np.random.default_rng(seed), len(differences)
    means = np.empty(resamples)
    step = max(1, CELLS // n)
    for start in range(0, resamples, step):
        drawn = random.integers(n, size=(min(step, resamples - start), n))
        means[start : start + len(drawn)] = (weights * differences)[drawn].sum(1) / weights[drawn].sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of wins and losses under a fair coin; McNemar's exact test for 0/1 outcomes."""
    n = wins + losses
    ways = tail = 1
    for k in range(min(wins, losses)):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)
