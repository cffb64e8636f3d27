"""Generalised Jensen-Shannon divergence: c = beta T + (1 - beta) S; beta KL(T || c) + (1 - beta) KL(S || c)."""

from __future__ import annotations

import math

import torch

from bitdistiller.distillation.losses.base import Reduction, divergence, reduce, unmasked


def loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    gamma: float = 0.5,
    reduction: Reduction = "sequence_sum",
) -> torch.Tensor:
    """gamma is beta, strictly between 0 and 1; shapes as in the package docstring. Raises ValueError otherwise."""
    if not 0.0 < gamma < 1.0:
        raise ValueError(f"jsd needs a beta strictly between 0 and 1, not {gamma}")
    student, teacher = unmasked(student_logits, teacher_logits, labels)
    centre = torch.logaddexp(teacher + math.log(gamma), student + math.log1p(-gamma))
    mixture = gamma * divergence(teacher, centre) + (1.0 - gamma) * divergence(student, centre)
    return reduce(mixture, len(labels), reduction)
