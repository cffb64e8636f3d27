"""Token-scaled logit distillation: soft cross-entropy, weighted by how hard the teacher finds each label."""

from __future__ import annotations

import torch

from bitdistiller.distillation.losses.base import IGNORE, Reduction, log_probabilities

TEMPERATURE = 10.0


def loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    gamma: float = 0.5,
    reduction: Reduction = "sequence_sum",
) -> torch.Tensor:
    """
    Summed over all positions and sequences; gamma and reduction are not used. Shapes as in the package docstring.

    The weights of a sequence are the softmax of (teacher's cross-entropy of the label at t + 1) / 10 over its
    positions whose next label is not ignored.
    """
    targets = labels[:, 1:]
    ignored = targets == IGNORE
    student, teacher = log_probabilities(student_logits[:, :-1]), log_probabilities(teacher_logits[:, :-1])
    hardness = -teacher.gather(-1, targets.masked_fill(ignored, 0).unsqueeze(-1)).squeeze(-1) / TEMPERATURE
    weights = torch.softmax(hardness.masked_fill(ignored, -torch.inf), dim=-1).nan_to_num(0.0)
    return -(weights.detach() * (teacher.exp() * student).sum(-1)).sum()


def divisor(labels: torch.Tensor, reduction: Reduction) -> int:
    """A sum, divided by nothing."""
    return 0
