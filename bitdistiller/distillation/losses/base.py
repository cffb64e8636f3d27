"""What the losses share: precision, which positions count and with what weight, and the plain call on full logits."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bitdistiller.distillation.losses.weighting import hardness

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


class Labelled(Protocol):
    """What the weights of a micro-batch depend on; each (rows, width) int64 (`batches.Batch` has more)."""

    labels: Tensor
    targets: Tensor
    sequence: Tensor


@dataclass(frozen=True)
class Rows:
    """A micro-batch of one sequence a row, from its labels (batch, sequence) alone."""

    labels: Tensor

    @property
    def targets(self) -> Tensor:
        """The label of the next position; -100 at the end."""
        return F.pad(self.labels[:, 1:], (0, 1), value=IGNORE)

    @property
    def sequence(self) -> Tensor:
        """The number of the row."""
        return torch.arange(len(self.labels), device=self.labels.device).unsqueeze(1).expand_as(self.labels)

    @property
    def counts(self) -> StepCounts:
        """The counts of a step that is this micro-batch."""
        return StepCounts(len(self.labels), *(int((x != IGNORE).sum()) for x in (self.labels, self.targets)))


@dataclass(frozen=True)
class Loss:
    """
    A loss: its mathematics on rows of log-probabilities, and the weight of every position.

    `shifted`: positions with a next label count (else those with an own label, as in the reference).
    `needs_teacher`: False for a loss that compares with label ids instead of the teacher's rows.
    `needs_gamma`: the value of gamma matters. `needs_label_probability`: the weights depend on the teacher's
    log-probability of the next label, and on no reduction.
    """

    mathematics: ModuleType
    shifted: bool = False
    needs_teacher: bool = True
    needs_gamma: bool = False
    needs_label_probability: bool = False

    def values(self, student: Tensor, against: Tensor, gamma: float) -> Tensor:
        """
        The loss of every position (n,), differentiable.

        student (n, v) log-probabilities; `against` those of the teacher (n, v), or label ids (n,) int64.
        """
        return self.mathematics.values(student, against, gamma)

    def derivatives(self, student: Tensor, against: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        """`values`, and their derivative (n, v) by the student's log-probabilities taken as free; new tensors."""
        return self.mathematics.derivatives(student, against, gamma)

    def counted(self, batch: Labelled) -> Tensor:
        """Where the loss has positions, (rows, width) bool."""
        return (batch.targets if self.shifted else batch.labels) != IGNORE

    def weights(
        self,
        batch: Labelled,
        counts: StepCounts,
        reduction: Reduction,
        label_log_probability: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """
        Weight of every position in the loss of the whole step, (rows, width) of `dtype`; 0 where none counts.

        Summed over the micro-batches and processes of a step, `weights * values` is the step's loss.
        label_log_probability (rows, width): the teacher's, of the next label; needed by `needs_label_probability`.
        Raises ValueError for an unknown reduction.
        """
        if reduction not in ("sequence_sum", "token_mean"):
            raise ValueError(f"unknown reduction {reduction!r}; accepted: sequence_sum, token_mean")
        counted = self.counted(batch)
        if self.needs_label_probability:
            if label_log_probability is None:
                raise ValueError("this loss needs the teacher's log-probability of the labels")
            return hardness(label_log_probability.to(dtype), counted, batch.sequence)
        positions = counts.targets if self.shifted else counts.labels
        return counted.to(dtype) / max(counts.sequences if reduction == "sequence_sum" else positions, 1)

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        *,
        gamma: float = 0.5,
        reduction: Reduction = "sequence_sum",
    ) -> Tensor:
        """The loss of full logits, a scalar; see the package docstring for shapes."""
        batch = Rows(labels)
        keep = self.counted(batch)
        targets = batch.targets[keep]
        student = log_probabilities(student_logits[keep])
        teacher = log_probabilities(teacher_logits[keep]) if self.needs_teacher else targets
        chosen = None
        if self.needs_label_probability:
            found = teacher.detach().gather(-1, targets.unsqueeze(-1)).squeeze(-1)
            chosen = found.new_zeros(keep.shape).masked_scatter(keep, found)
        weights = self.weights(batch, batch.counts, reduction, chosen, student.dtype)
        return (self.values(student, teacher, gamma) * weights[keep]).sum()


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the vocabulary in float32, or in float64 when that is what comes in."""
    return F.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over the last dimension, from log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
