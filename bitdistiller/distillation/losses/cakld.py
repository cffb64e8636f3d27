"""Confidence-aware KL divergence (BitDistiller, equation 6): gamma * KL(S || T) + (1 - gamma) * KL(T || S)."""

from __future__ import annotations

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
    """gamma is the teacher's mean confidence, in 0..1; shapes as in the package docstring."""
    student, teacher = unmasked(student_logits, teacher_logits, labels)
    mixture = gamma * divergence(student, teacher) + (1.0 - gamma) * divergence(teacher, student)
    return reduce(mixture, len(labels), reduction)
