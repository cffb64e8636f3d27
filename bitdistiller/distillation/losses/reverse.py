"""Reverse KL divergence: KL(S || T), which seeks one of the teacher's modes."""

from __future__ import annotations

import torch
from torch import Tensor

from bitdistiller.distillation.losses.base import divergence


def values(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """Rows of log-probabilities (n, v) -> (n,); gamma is not used."""
    return divergence(student, teacher)


def derivatives(student: Tensor, teacher: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """`values` and their derivative p_S (log p_S - log p_T + 1)."""
    p, d = student.exp(), student - teacher
    return torch.linalg.vecdot(p, d), d.add_(1.0).mul_(p)
