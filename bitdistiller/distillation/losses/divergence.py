"""KL divergence from the teacher on every position, divided by the batch alone: LLM-QAT's loss (arXiv 2305.17888)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bitdistiller.distillation.losses.base import divergence, log_probabilities


@dataclass(frozen=True)
class BatchDivergence:
    """`scale * sum_{b, t} KL(teacher || student) / B`: temperature 1, no shift, labels and hidden states not used."""

    scale: float = 1.0
    """The released scripts' `kd_loss_scale`."""

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """A scalar, of logits (batch, sequence, vocabulary); keywords of other losses do nothing."""
        found = divergence(log_probabilities(teacher_logits), log_probabilities(student_logits))
        return self.scale * found.sum() / len(student_logits)
