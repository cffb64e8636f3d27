"""Generalised Jensen-Shannon divergence: c = beta T + (1 - beta) S; beta KL(T || c) + (1 - beta) KL(S || c)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bitdistiller.distillation.losses.base import divergence


def values(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """Rows of log-probabilities (n, v) -> (n,); gamma is beta, strictly in 0..1, or ValueError is raised."""
    centre = _centre(student, teacher, gamma)
    return gamma * divergence(teacher, centre) + (1.0 - gamma) * divergence(student, centre)


def derivatives(student: Tensor, teacher: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """
    `values` and their derivative (1 - beta) p_S (log p_S - log c).

    What comes through log c, -(beta p_T + (1 - beta) p_S) / c times (1 - beta) p_S, cancels the derivative of p_S
    in (1 - beta) p_S log p_S.
    """
    centre = _centre(student, teacher, gamma)
    p, d = student.exp(), student - centre
    value = (1.0 - gamma) * torch.linalg.vecdot(p, d)
    value += gamma * torch.linalg.vecdot(teacher.exp(), teacher - centre)
    return value, d.mul_(p).mul_(1.0 - gamma)


def _centre(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    if not 0.0 < beta < 1.0:
        raise ValueError(f"jsd needs a beta strictly between 0 and 1, not {beta}")
    return torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
