"""
Token-scaled logit distillation: soft cross-entropy, weighted by how hard the teacher finds each label.

The weights (`weighting.hardness`) add up to 1 in every sequence; the loss is the sum over sequences, whatever the
reduction.
"""

from __future__ import annotations

import torch
from torch import Tensor


def values(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """Rows of log-probabilities (n, v) -> (n,); gamma is not used."""
    return -(teacher.exp() * student).sum(-1)


def derivatives(student: Tensor, teacher: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """`values` and their derivative -p_T."""
    slope = teacher.exp().neg_()
    return torch.linalg.vecdot(slope, student), slope
