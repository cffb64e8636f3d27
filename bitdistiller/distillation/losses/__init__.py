"""
Distillation losses (docs/method.md 4), one file each, their registry and weighted sums of them.

A file has the loss of a position from rows of log-probabilities (`values`) and its derivative (`derivatives`); the
chunked loss and the plain call are made of these. The plain call is `loss(student_logits, teacher_logits, labels,
gamma=..., reduction=...)` with logits (batch, sequence, vocabulary) of any float dtype and labels (batch, sequence)
int64, -100 where a position is ignored. Arithmetic is float32 (float64 for float64 input); the result is a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from bitdistiller.distillation.losses import cakld, ce, forward, jsd, reverse, tlsd
from bitdistiller.distillation.losses.base import Loss, StepCounts
from bitdistiller.distillation.losses.divergence import BatchDivergence
from bitdistiller.distillation.losses.onebit import OneBitLoss
from bitdistiller.errors import InputError
from bitdistiller.plugins import LOSSES as GROUP
from bitdistiller.plugins import load_plugin, plugins

LOSSES: dict[str, Loss] = {
    "cakld": Loss(cakld, needs_gamma=True),
    "forward": Loss(forward),
    "reverse": Loss(reverse),
    "jsd": Loss(jsd, needs_gamma=True),
    "tlsd": Loss(tlsd, shifted=True, needs_label_probability=True),
    "ce": Loss(ce, shifted=True, needs_teacher=False),
}


WHOLE: dict[str, Callable[[], Callable[..., Tensor]]] = {"onebit": OneBitLoss, "llm-qat": BatchDivergence}
"""Losses that are no sum over positions of rows of log-probabilities: they take whole logits and hidden states."""


class Weighted(NamedTuple):
    """One summand of a weighted sum of losses."""

    loss: Loss
    coefficient: float


def get_loss(name: str) -> Any:
    """
    The loss called `name`, to be called as the package says; raises InputError for an unknown one.

    `onebit` and `llm-qat` have the coefficients of the released scripts (others: make them yourself), count every
    position and divide by the batch alone; hidden states are their keyword arguments `student_hidden_states` and
    `teacher_hidden_states`.
    """
    if name in LOSSES:
        return LOSSES[name]
    if name in WHOLE:
        return WHOLE[name]()
    if name not in plugins(GROUP):
        raise InputError(f"unknown loss {name!r}; accepted: {', '.join((*LOSSES, *WHOLE, *plugins(GROUP)))}")
    found = load_plugin(GROUP, name)
    return found if isinstance(found, Loss) else Loss(found)


def resolve(chosen: str | Mapping[str, float]) -> list[Weighted]:
    """The summands of `training.loss`: a name, which is that loss alone, or coefficients by name."""
    coefficients = {chosen: 1.0} if isinstance(chosen, str) else chosen
    return [Weighted(get_loss(name), coefficient) for name, coefficient in coefficients.items()]


__all__ = ["LOSSES", "BatchDivergence", "Loss", "OneBitLoss", "StepCounts", "Weighted", "get_loss", "resolve"]
