"""
Distillation losses (docs/method.md 4), one file each, and their registry.

Every loss is called as `loss(student_logits, teacher_logits, labels, gamma=..., reduction=...)` with logits
(batch, sequence, vocabulary) of any float dtype and labels (batch, sequence) int64, -100 where a position is ignored.
Arithmetic is float32 (float64 for float64 input); the result is a scalar.
"""

from __future__ import annotations

from bitdistiller.distillation.losses import cakld, ce, forward, jsd, reverse, tlsd
from bitdistiller.distillation.losses.base import Loss
from bitdistiller.errors import InputError

LOSSES: dict[str, Loss] = {
    "cakld": Loss(cakld.loss, needs_gamma=True),
    "forward": Loss(forward.loss),
    "reverse": Loss(reverse.loss),
    "jsd": Loss(jsd.loss, needs_gamma=True),
    "tlsd": Loss(tlsd.loss, tlsd.divisor),
    "ce": Loss(ce.loss, ce.divisor),
}


def get_loss(name: str) -> Loss:
    """The loss called `name`; raises InputError for an unknown one."""
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}; accepted: {', '.join(LOSSES)}")
    return LOSSES[name]


__all__ = ["LOSSES", "Loss", "get_loss"]
