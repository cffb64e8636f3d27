"""Cross-entropy with the next token: logits at t predict the label at t + 1."""

from __future__ import annotations

import torch

from bitdistiller.distillation.losses.base import IGNORE, Reduction, log_probabilities, positions, reduce


def loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    gamma: float = 0.5,
    reduction: Reduction = "sequence_sum",
) -> torch.Tensor:
    """The teacher and gamma are not used; shapes as in the package docstring."""
    targets = labels[:, 1:]
    keep = targets != IGNORE
    chosen = log_probabilities(student_logits[:, :-1][keep]).gather(-1, targets[keep].unsqueeze(-1))
    return reduce(-chosen.squeeze(-1), len(labels), reduction)


def divisor(labels: torch.Tensor, reduction: Reduction) -> int:
    """The first label of a sequence is nobody's target."""
    return positions(labels[:, 1:], reduction)
