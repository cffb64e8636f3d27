"""Confidence-aware KL divergence (BitDistiller, equation 6): gamma KL(S || T) + (1 - gamma) KL(T || S)."""

from __future__ import annotations

import torch
from torch import Tensor

from bitdistiller.distillation.losses.base import divergence


def values(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """Rows of log-probabilities (n, v) -> (n,); gamma is the teacher's mean confidence, in 0..1."""
    return gamma * divergence(student, teacher) + (1.0 - gamma) * divergence(teacher, student)


def derivatives(student: Tensor, teacher: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """`values` and, with d = log p_S - log p_T, their derivative gamma p_S (d + 1) - (1 - gamma) p_T."""
    p, q, d = student.exp(), teacher.exp(), student - teacher
    value = gamma * torch.linalg.vecdot(p, d) - (1.0 - gamma) * torch.linalg.vecdot(q, d)
    return value, d.add_(1.0).mul_(p).mul_(gamma).sub_(q, alpha=1.0 - gamma)
