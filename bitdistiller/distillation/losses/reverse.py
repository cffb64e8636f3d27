"""Reverse KL divergence: KL(S || T), which seeks one of the teacher's modes."""

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
    """gamma is not used; shapes as in the package docstring."""
    student, teacher = unmasked(student_logits, teacher_logits, labels)
    return reduce(divergence(student, teacher), len(labels), reduction)
