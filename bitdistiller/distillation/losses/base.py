"""What the losses share: precision, the mask of the labels, the two reductions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F

IGNORE = -100
Reduction = Literal["sequence_sum", "token_mean"]


@dataclass(frozen=True)
class StepCounts:
    """What a whole optimizer step holds over all its micro-batches and processes."""

    sequences: int
    labels: int
    """Positions whose own label counts."""
    targets: int
    """Positions with a next label of the same sequence that counts."""


class LossFunction(Protocol):
    """The call every loss offers."""

    def __call__(
        self,
        student_logits: torch.Tensor,
        teacher_logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        gamma: float = 0.5,
        reduction: Reduction = "sequence_sum",
    ) -> torch.Tensor:
        """A scalar; see the package docstring for shapes."""
        ...


def positions(labels: torch.Tensor, reduction: Reduction) -> int:
    """What `reduce` divides by when every label that is not ignored counts: these labels, or the sequences."""
    return len(labels) if reduction == "sequence_sum" else int((labels != IGNORE).sum())


@dataclass(frozen=True)
class Loss:
    """
    A loss that is called like its function.

    `divisor(labels, reduction)` is what the function divides its sum by, so that the losses of parts of a batch can be
    joined to that of the whole; 0 stands for a loss that divides by nothing. `needs_gamma`: the value of gamma matters.
    """

    function: LossFunction
    divisor: Callable[[torch.Tensor, Reduction], int] = positions
    needs_gamma: bool = False

    def __call__(
        self,
        student_logits: torch.Tensor,
        teacher_logits: torch.Tensor,
        labels: torch.Tensor,
        *,
        gamma: float = 0.5,
        reduction: Reduction = "sequence_sum",
    ) -> torch.Tensor:
        """A scalar; see the package docstring for shapes."""
        return self.function(student_logits, teacher_logits, labels, gamma=gamma, reduction=reduction)


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Log-softmax over the vocabulary in float32, or in float64 when that is what comes in."""
    return F.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


def unmasked(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities (positions, vocabulary) of both models where `labels` is not ignored (labels not shifted)."""
    keep = labels != IGNORE
    return log_probabilities(student[keep]), log_probabilities(teacher[keep])


def reduce(per_position: torch.Tensor, sequences: int, reduction: Reduction) -> torch.Tensor:
    """
    The sum over positions divided by the number of sequences, or by that of positions.

    per_position (positions,). No position at all gives 0 with a gradient of 0. Raises ValueError for other names.
    """
    if reduction == "sequence_sum":
        return per_position.sum() / sequences
    if reduction == "token_mean":
        return per_position.sum() / max(per_position.numel(), 1)
    raise ValueError(f"unknown reduction {reduction!r}; accepted: sequence_sum, token_mean")


def divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) over the last dimension, from log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
