"""OneBit's loss (arXiv 2402.11295, as released): KL on every position, and normalised hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bitdistiller.distillation.losses import ce
from bitdistiller.distillation.losses.base import IGNORE, Rows, log_probabilities
from bitdistiller.distillation.losses.divergence import BatchDivergence


@dataclass(frozen=True)
class OneBitLoss:
    """
    `alpha scale KL + (1 - alpha) CE + beta HID + gamma ATT`, the defaults those of the released scripts.

    KL: `divergence.BatchDivergence`. CE: next-token cross-entropy of the student, a mean over labels, and not computed
    where alpha is 1. HID: over the hidden states before the last (entry 0 is the embedding), the sum of the mean over
    all tokens of `|t/|t| - s/|s||^2`. ATT: over layers, the sum of the mean over batch, heads and rows of the squared
    distance of the attention probabilities. Everything in float32.
    """

    alpha: float = 1.0
    """The released code's `kd_alpha`."""
    scale: float = 0.01
    """`kd_loss_scale`."""
    beta: float = 1.0
    """`kd_beta`."""
    attention: float = 0.0
    """`kd_gamma`."""

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        *,
        student_hidden_states: Sequence[Tensor] = (),
        teacher_hidden_states: Sequence[Tensor] = (),
        student_attentions: Sequence[Tensor] = (),
        teacher_attentions: Sequence[Tensor] = (),
        **_: Any,
    ) -> Tensor:
        """
        A scalar, of logits (batch, sequence, vocabulary) and what transformers returns as `hidden_states`, layers + 1
        of (batch, sequence, width), and `attentions`, layers of (batch, heads, sequence, sequence).

        `gamma` and `reduction` of other losses do nothing, and labels only with alpha below 1. Raises ValueError where
        a coefficient asks for states that are not given, or are not as many on both sides.
        """
        total = self.alpha * BatchDivergence(self.scale)(student_logits, teacher_logits)
        if self.alpha != 1:
            total = total + (1 - self.alpha) * _next_token(student_logits, labels)
        if self.beta:
            pairs = _pairs(student_hidden_states, teacher_hidden_states, "hidden_states")[:-1]
            total = total + self.beta * sum(hidden_distance(*pair) for pair in pairs)
        if self.attention:
            pairs = _pairs(student_attentions, teacher_attentions, "attentions")
            total = total + self.attention * sum(_squared_distances(s.float(), t.float()).mean() for s, t in pairs)
        return total


def hidden_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all tokens of the squared distance of hidden states (..., width), each divided by its length."""
    return normalised_distances(student, teacher).mean()


def normalised_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distances (...) of hidden states (..., width), each divided by its length, in float32."""
    return _squared_distances(*(F.normalize(state.float(), dim=-1, eps=1e-12) for state in (student, teacher)))


def _squared_distances(student: Tensor, teacher: Tensor) -> Tensor:
    return (teacher.to(student.device) - student).square().sum(-1)


def _next_token(logits: Tensor, labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("alpha below 1 needs labels")
    targets = Rows(labels).targets
    keep = targets != IGNORE
    return ce.values(log_probabilities(logits[keep]), targets[keep], 0.0).mean()


def _pairs(student: Sequence[Tensor], teacher: Sequence[Tensor], name: str) -> list[tuple[Tensor, Tensor]]:
    if not len(student) or len(student) != len(teacher):
        raise ValueError(f"give student_{name} and teacher_{name}, as many of both ({len(student)}, {len(teacher)})")
    return list(zip(student, (state.detach() for state in teacher), strict=True))
