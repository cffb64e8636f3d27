"""
Distillation losses (docs/method.md 4), one file each, their registry and weighted sums of them.

A file has the loss of a position from rows of log-probabilities (`values`) and its derivative (`derivatives`); the
chunked loss and the plain call are made of these. The plain call is `loss(student_logits, teacher_logits, labels,
gamma=..., reduction=...)` with logits (batch, sequence, vocabulary) of any float dtype and labels (batch, sequence)
int64, -100 where a position is ignored. Arithmetic is float32 (float64 for float64 input); the result is a scalar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bitdistiller.distillation.losses import cakld, ce, forward, jsd, reverse, tlsd
from bitdistiller.distillation.losses.base import Loss, StepCounts
from bitdistiller.errors import InputError

LOSSES: dict[str, Loss] = {
    "cakld": Loss(cakld, needs_gamma=True),
    "forward": Loss(forward),
    "reverse": Loss(reverse),
    "jsd": Loss(jsd, needs_gamma=True),
    "tlsd": Loss(tlsd, shifted=True, needs_label_probability=True),
    "ce": Loss(ce, shifted=True, needs_teacher=False),
}


class Weighted(NamedTuple):
    """One summand of a weighted sum of losses."""

    loss: Loss
    coefficient: float


def get_loss(name: str) -> Loss:
    """The loss called `name`; raises InputError for an unknown one."""
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}; accepted: {', '.join(LOSSES)}")
    return LOSSES[name]


def resolve(chosen: str | Mapping[str, float]) -> list[Weighted]:
    """The summands of `training.loss`: a name, which is that loss alone, or coefficients by name."""
    coefficients = {chosen: 1.0} if isinstance(chosen, str) else chosen
    return [Weighted(get_loss(name), coefficient) for name, coefficient in coefficients.items()]


__all__ = ["LOSSES", "Loss", "StepCounts", "Weighted", "get_loss", "resolve"]
