"""CAKLD's gamma: the teacher's confidence, computed once and stored (docs/method.md 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from bitdistiller.distillation.losses.base import IGNORE, log_probabilities


def label_probability(logits: torch.Tensor, labels: torch.Tensor, completion: torch.Tensor) -> tuple[float, int]:
    """
    Sum and count of the teacher's probability of the label tokens of the completions (the paper's definition).

    logits (batch, sequence, vocabulary); labels (batch, sequence); completion (batch, sequence) bool. The logits at t
    are paired with the label at t + 1.
    """
    targets, counted = labels[:, 1:], completion[:, 1:] & (labels[:, 1:] != IGNORE)
    chosen = log_probabilities(logits[:, :-1][counted]).gather(-1, targets[counted].unsqueeze(-1))
    return chosen.exp().double().sum().item(), int(counted.sum())


def top_probability(logits: torch.Tensor) -> tuple[float, int]:
    """Sum and count of the teacher's largest probability over all positions, padding too (the reference's)."""
    largest = log_probabilities(logits).amax(-1).exp().double()
    return largest.sum().item(), largest.numel()


@torch.no_grad()
def paper_gamma(teacher: Any, batches: Iterable[dict[str, torch.Tensor]]) -> float:
    """Mean probability of the label over all completion tokens of the batches."""
    total, count = 0.0, 0
    for batch in batches:
        logits = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        part, tokens = label_probability(logits, batch["labels"], batch["completion"])
        total, count = total + part, count + tokens
    return total / max(count, 1)


@torch.no_grad()
def reference_gamma(teacher: Any, batches: Iterable[dict[str, torch.Tensor]], steps: int, reference_sum: bool) -> float:
    """
    Mean over the first `steps` batches of the batch's mean largest probability.

    With `reference_sum` the released code's slip is restored: `steps` + 1 batches are summed, divided by `steps`.
    """
    means: list[float] = []
    for batch in batches:
        if len(means) == steps + reference_sum:
            break
        total, count = top_probability(
            teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        )
        means.append(total / count)
    return sum(means) / (steps if len(means) > steps else len(means))
