"""CAKLD's gamma: the teacher's confidence, computed once and stored (docs/method.md 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from bitdistiller.distillation.losses.base import IGNORE
from bitdistiller.distillation.signals import Signal

Part = tuple[float, int]
"""Sum of a probability over some positions, and their number."""


class Completed(Protocol):
    """What the positions of a micro-batch depend on; each (rows, width), `completion` bool, the others int64."""

    targets: Tensor
    completion: Tensor
    sequence: Tensor


def paper_positions(batch: Completed) -> Tensor:
    """Positions (rows, width) bool whose next token counts and was written by the teacher itself."""
    following = batch.completion.roll(-1, dims=-1)
    following[:, -1:] = False
    return following & (batch.targets != IGNORE)


def reference_positions(batch: Completed) -> Tensor:
    """
    All real positions (rows, width) bool, prompt too.

    The released code averages over padding as well; the two agree where nothing is padded, and ours does not depend on
    how a batch is laid out.
    """
    return batch.sequence >= 0


def paper_part(signal: Signal, targets: Tensor) -> Part:
    """The teacher's probability of the targets (n,) at the n positions of its signal."""
    return signal.label_log_probability(targets).exp().double().sum().item(), len(targets)


def reference_part(signal: Signal) -> Part:
    """The teacher's largest probability at the n positions of its signal."""
    found = signal.top_log_probability().exp().double()
    return found.sum().item(), len(found)


def paper_gamma(parts: Iterable[Part]) -> float:
    """Mean probability of the label over all completion tokens."""
    total, count = 0.0, 0
    for part, tokens in parts:
        total, count = total + part, count + tokens
    return total / max(count, 1)


def reference_gamma(parts: Iterable[Part], steps: int, reference_sum: bool) -> float:
    """
    Mean over the first `steps` batches of the batch's mean largest probability; asks for no more parts than it needs.

    With `reference_sum` the released code's slip is restored: `steps` + 1 batches are summed, divided by `steps`.
    """
    means: list[float] = []
    for total, count in parts:
        means.append(total / max(count, 1))
        if len(means) == steps + reference_sum:
            break
    return sum(means) / (steps if len(means) > steps else max(len(means), 1))
