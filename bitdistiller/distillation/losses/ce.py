"""Cross-entropy with the next token: logits at t predict the label at t + 1."""

from __future__ import annotations

import torch
from torch import Tensor


def values(student: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Log-probabilities (n, v) and label ids (n,) -> (n,); gamma is not used."""
    return -student.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def derivatives(student: Tensor, targets: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """`values` and their derivative, -1 at the label."""
    slope = torch.zeros_like(student)
    slope.scatter_(-1, targets.unsqueeze(-1), -1.0)
    return values(student, targets, gamma), slope
