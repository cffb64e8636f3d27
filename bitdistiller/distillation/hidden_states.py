"""What blocks pass on, of student and teacher, as a summand of the loss beside those of the logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bitdistiller.distillation.losses.base import IGNORE, StepCounts
from bitdistiller.distillation.losses.onebit import normalised_distances
from bitdistiller.layers import decoder_blocks


@dataclass(frozen=True)
class StatesTerm:
    """`coefficient` times the sum over blocks and n positions of weight times `|t/|t| - s/|s||^2`."""

    teacher: tuple[Tensor, ...]
    """(n, hidden size) for each state but the last, which the logits are made of; the first is the embedding's."""
    weights: Tensor
    """(n,)"""
    coefficient: float

    def value(self, student: Sequence[Tensor], keep: Tensor) -> Tensor:
        """A scalar, of the student's states (rows, width, hidden size), of which `keep` (rows, width) bool counts."""
        pairs = zip(student, self.teacher, strict=True)
        found = [(self.weights * normalised_distances(mine[keep], theirs)).sum() for mine, theirs in pairs]
        return self.coefficient * sum(found[1:], found[0])


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Tensor]]:
    """
    A list that gets what comes into each decoder block, (rows, width, hidden size), during one forward pass inside.

    transformers' own `output_hidden_states` goes by the class of a model, which an engine may have changed. When a
    block is recomputed for its gradients, which is later, nothing is recorded.
    """
    states: list[Tensor] = []

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    _, blocks = decoder_blocks(model)
    hooks = [block.register_forward_pre_hook(take, with_kwargs=True) for block in blocks]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def token_mean(labels: Tensor, keep: Tensor, counts: StepCounts) -> Tensor:
    """Weights (n,) of a mean over all tokens of a step, at the positions of `keep`."""
    return (labels[keep] != IGNORE).float() / max(counts.labels, 1)
