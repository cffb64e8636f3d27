"""What blocks pass on, of student and teacher, as a summand of the loss beside those of the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bitdistiller.distillation.losses.base import IGNORE, StepCounts
from bitdistiller.distillation.losses.onebit import normalised_distances


@dataclass(frozen=True)
class StatesTerm:
    """`coefficient` times the sum over blocks and n positions of weight times `|t/|t| - s/|s||^2`."""

    teacher: tuple[Tensor, ...]
    """(n, hidden size) for each state but the last, which the logits are made of; the first is the embedding's."""
    weights: Tensor
    """(n,)"""
    coefficient: float

    def value(self, student: Sequence[Tensor], keep: Tensor) -> Tensor:
        """A scalar, of the student's states (rows, width, hidden size), of which `keep` (rows, width) bool counts."""
        pairs = zip(student, self.teacher, strict=True)
        found = [(self.weights * normalised_distances(mine[keep], theirs)).sum() for mine, theirs in pairs]
        return self.coefficient * sum(found[1:], found[0])


def token_mean(labels: Tensor, keep: Tensor, counts: StepCounts) -> Tensor:
    """Weights (n,) of a mean over all tokens of a step, at the positions of `keep`."""
    return (labels[keep] != IGNORE).float() / max(counts.labels, 1)
