"""
The distillation loss without logits of all positions: hidden states and heads in, loss and gradients out, by chunks.

After the idea of Liger-Kernel's fused linear losses: gradients are computed in the forward pass, where the logits of a
chunk are at hand, and the backward pass only scales them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.losses.base import Loss, log_probabilities
from bitdistiller.distillation.signals import HiddenSignal, LabelSignal, Signal, chunk_rows
from bitdistiller.kernels.eager import keep_freed_memory


@dataclass(frozen=True)
class Term:
    """One summand: coefficient times the sum over positions of weights (n,) times the loss's values."""

    loss: Loss
    coefficient: float
    weights: Tensor
    gamma: float


def chunked_loss(
    hidden: Tensor,
    head: Head,
    signal: Signal | None,
    targets: Tensor,
    terms: list[Term],
    chunk: int | None = None,
) -> Tensor:
    """
    The weighted sum of losses of n positions, a float32 scalar (float64 where the head is).

    hidden (n, hidden size) and `head`: the student's; `signal`: the teacher's, None where no term needs it; targets
    (n,) int64, ids of the next labels, read where a term without teacher has a weight. `chunk`: positions at once; the
    default makes their logits 32 MiB on the CPU and 256 MiB elsewhere. Products with the heads are in autocast's dtype
    where it is on, else in the dtype of each head; all the rest is float32. Positions without any weight are skipped.
    Of heads with unequal vocabularies both use the smaller. Under no_grad no gradient is computed.
    """
    if isinstance(signal, HiddenSignal) and signal.head.vocabulary != head.vocabulary:
        head, signal = head.cut(signal.head.vocabulary), signal.cut(head.vocabulary)
    dtype = _product_dtype(head.weight)
    if dtype != head.weight.dtype and isinstance(signal, HiddenSignal):
        signal = signal.to(dtype)
    groups = [
        (side, chosen)
        for side, needs in ((signal, True), (LabelSignal(targets.clamp(min=0)), False))
        if (chosen := [term for term in terms if term.loss.needs_teacher is needs])
    ]
    work = _Work(head.to(dtype), groups, chunk or chunk_rows(head.vocabulary, hidden.device))
    return _ChunkedLoss.apply(hidden, head.weight, head.bias, work, torch.is_grad_enabled())


def _product_dtype(weight: Tensor) -> torch.dtype:
    device = weight.device.type
    if weight.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


@dataclass(frozen=True)
class _Work:
    """All that is not differentiated."""

    head: Head
    """The student's used rows in the dtype of the products."""
    groups: list[tuple[Any, list[Term]]]
    """Terms by what they compare the student with."""
    rows: int

    def positions(self) -> tuple[Tensor, ...]:
        """Positions (c,) int64 that have any weight, in chunks."""
        weighty = torch.stack([term.weights != 0 for _, terms in self.groups for term in terms]).any(0)
        return weighty.nonzero().squeeze(-1).split(self.rows)

    def value(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """The loss of some positions with hidden states (c, hidden size)."""
        student, total = log_probabilities(self.head.logits(hidden)), 0.0
        for signal, terms in self.groups:
            coarse, against = signal.coarse(positions, student), signal.rows(positions)
            for term in terms:
                values = term.loss.values(coarse, against, term.gamma)
                total = total + term.coefficient * (term.weights[positions] * values).sum()
        return total

    def derivative(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """`value`, and its gradient (c, vocabulary) by the products of hidden states and weight."""
        logits = self.head.logits(hidden)
        student = log_probabilities(logits)
        logits = logits if self.head.softcap is not None else None
        parts = [_slopes(signal, terms, student, positions) for signal, terms in self.groups]
        gradient = parts[0][1]
        for _, other in parts[1:]:
            gradient += other
        return sum(value for value, _ in parts), self.head.pull_back(gradient, logits)


def _slopes(signal: Any, terms: list[Term], student: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the terms at some positions, and its gradient (c, V) by the student's logits."""
    coarse, against = signal.coarse(positions, student), signal.rows(positions)
    total, slopes = 0.0, None
    for term in terms:
        weights = term.coefficient * term.weights[positions]
        values, slope = term.loss.derivatives(coarse, against, term.gamma)
        total = total + (weights * values).sum()
        slope.mul_(weights.unsqueeze(-1))
        slopes = slope if slopes is None else slopes.add_(slope)
    return total, signal.pull_back(positions, slopes, student, coarse)


class _ChunkedLoss(torch.autograd.Function):
    """Loss and gradients in the forward pass; see `chunked_loss`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work, grad: bool) -> Tensor:
        """The scalar; keeps the gradients of what needs one."""
        keep_freed_memory()
        needs = [grad and needed for needed in ctx.needs_input_grad[:3]]
        gradients = [_zeros(x) if needed else None for x, needed in zip((hidden, weight, bias), needs, strict=True)]
        exact = work.head.weight.dtype == torch.float64
        total = torch.zeros((), dtype=torch.float64 if exact else torch.float32, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for positions in work.positions():
                part = hidden[positions].to(work.head.weight.dtype)
                if not any(needs):
                    total += work.value(part, positions)
                    continue
                value, slopes = work.derivative(part, positions)
                total += value
                _accumulate(gradients, part, slopes, positions, work.head)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [None if x is None else x.dtype for x in (hidden, weight, bias)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients times the upstream one; as they are where that is 1, without a second copy."""
        scale = None if bool(upstream == 1.0) else upstream
        scaled = [
            None if gradient is None else (gradient if scale is None else gradient * scale).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *scaled, None, None


def _zeros(of: Tensor) -> Tensor:
    return torch.zeros_like(of, dtype=torch.float64 if of.dtype == torch.float64 else torch.float32)


def _accumulate(gradients: list[Tensor | None], hidden: Tensor, slopes: Tensor, positions: Tensor, head: Head) -> None:
    """Add a chunk's gradients: slopes (c, vocabulary) float32 by the products of hidden (c, hidden size) and weight."""
    of_hidden, of_weight, of_bias = gradients
    if of_bias is not None:
        of_bias[: head.vocabulary] += slopes.sum(0)
    slopes = slopes.to(head.weight.dtype)
    if of_hidden is not None:
        of_hidden[positions] = (slopes @ head.weight).to(of_hidden.dtype)
    if of_weight is not None and of_weight.dtype == slopes.dtype:
        of_weight[: head.vocabulary].addmm_(slopes.T, hidden)
    elif of_weight is not None:
        of_weight[: head.vocabulary] += slopes.T @ hidden
