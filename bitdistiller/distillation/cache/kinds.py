"""What is kept of the teacher's hidden states: themselves, or the head of the distribution they stand for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.losses.base import log_probabilities

ROWS = 1024
"""Positions whose logits are in memory at a time."""
STORED = torch.float16
"""Precision of the kept log-probabilities; docs/method.md 4 has what it costs."""


def hidden_rows(hidden: Tensor, targets: Tensor, head: Head, k: int) -> dict[str, Tensor]:
    """The hidden states (tokens, hidden size) as they are."""
    return {"hidden": hidden}


def topk_rows(hidden: Tensor, targets: Tensor, head: Head, k: int) -> dict[str, Tensor]:
    """
    The k largest log-probabilities of every position (all but one where the vocabulary is no larger than k, so that
    there is always a rest), and what else the losses ask of a teacher.

    hidden (tokens, hidden size), targets (tokens,) int64 with -100 where there is none. `ids` (tokens, k) int32 and
    `log_probabilities` (tokens, k) float16, from the largest down; `rest` (tokens,), the logarithm of the mass of all
    other tokens, and `label` (tokens,), the log-probability of the target, 0 where there is none: float32.
    """
    parts = [
        _topk(head.logits(part), wanted, k)
        for part, wanted in zip(hidden.split(ROWS), targets.split(ROWS), strict=True)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _topk(logits: Tensor, targets: Tensor, k: int) -> dict[str, Tensor]:
    log_p = log_probabilities(logits)
    label = log_p.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    kept, ids = log_p.topk(min(k, log_p.shape[-1] - 1))
    return {
        "ids": ids.int(),
        "log_probabilities": kept.to(STORED),
        "rest": log_p.scatter(-1, ids, -torch.inf).logsumexp(-1),
        "label": label.masked_fill(targets < 0, 0.0),
    }


KINDS: dict[str, Callable[[Tensor, Tensor, Head, int], dict[str, Tensor]]] = {
    "hidden": hidden_rows,
    "topk": topk_rows,
}
