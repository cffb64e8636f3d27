"""Forward KL divergence: KL(T || S), which covers all the teacher's modes."""

from __future__ import annotations

import torch
from torch import Tensor

from bitdistiller.distillation.losses.base import divergence


def values(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """Rows of log-probabilities (n, v) -> (n,); gamma is not used."""
    return divergence(teacher, student)


def derivatives(student: Tensor, teacher: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """`values` and their derivative -p_T."""
    q = teacher.exp()
    return torch.linalg.vecdot(q, teacher - student), q.neg_()
