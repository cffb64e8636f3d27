"""The teacher's side of a micro-batch: from the model itself, or from what was kept of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bitdistiller.config import Training
from bitdistiller.distillation.batches import Batch
from bitdistiller.distillation.cache.reader import Cache
from bitdistiller.distillation.heads import Head, read_head
from bitdistiller.distillation.hidden_states import recorded
from bitdistiller.distillation.signals import HiddenSignal, Signal, TopKSignal


class Teacher(Protocol):
    """Whoever knows the teacher's distribution at the positions of a micro-batch."""

    def signal(self, batch: Batch, keep: Tensor) -> Signal:
        """The teacher at the positions where `keep` (rows, width) bool is set, flattened row by row."""
        ...


Place = Callable[[Any], None]
"""Moves or shards a frozen model, in place."""


def load_teacher(directory: Path, precision: str, device: torch.device | str, place: Place | None = None) -> Any:
    """A frozen model in `precision`, ready for evaluation on the device, or wherever `place` puts it."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, precision))
    model.eval().requires_grad_(False)
    (place or (lambda model: model.to(device)))(model)
    return model


@torch.no_grad()
def last_hidden_states(model: Any, batch: Batch) -> Tensor:
    """What the model's head is applied to, (rows, width, hidden size), in the model's own precision."""
    with torch.autocast(batch.input_ids.device.type, enabled=False):
        return model.base_model(**batch.model_inputs).last_hidden_state


class LiveTeacher:
    """A frozen model that runs on every micro-batch, of whose head the first `vocabulary` rows count."""

    def __init__(self, model: Any, vocabulary: int | None = None) -> None:
        self.model = model
        head = Head.of(model)
        self.head = head.cut(vocabulary or head.vocabulary)

    def signal(self, batch: Batch, keep: Tensor) -> Signal:
        """Hidden states of this forward pass."""
        return HiddenSignal(last_hidden_states(self.model, batch)[keep], self.head)

    def signal_and_states(self, batch: Batch, keep: Tensor) -> tuple[Signal, tuple[Tensor, ...]]:
        """`signal`, and at the same positions the embedding and what every block but the last passes on."""
        with recorded(self.model.base_model) as states:
            last = last_hidden_states(self.model, batch)
        return HiddenSignal(last[keep], self.head), tuple(state[keep] for state in states)


class CachedHiddenTeacher:
    """Hidden states from the disk under the teacher's head, which is all of the teacher that is in memory."""

    def __init__(self, cache: Cache, head: Head) -> None:
        self.cache, self.head = cache, head

    def signal(self, batch: Batch, keep: Tensor) -> Signal:
        """Hidden states as the stage `cache-teacher` wrote them."""
        return HiddenSignal(read_kept(self.cache, "hidden", batch, keep), self.head)


class CachedTopKTeacher:
    """The most probable tokens from the disk; no part of the teacher is in memory."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def signal(self, batch: Batch, keep: Tensor) -> Signal:
        """Log-probabilities as the stage `cache-teacher` wrote them, in float32."""
        names = ("ids", "log_probabilities", "rest", "label")
        ids, log_probabilities, rest, label = (read_kept(self.cache, name, batch, keep) for name in names)
        return TopKSignal(ids.long(), log_probabilities.float(), rest, label)


def read_kept(cache: Cache, name: str, batch: Batch, keep: Tensor) -> Tensor:
    """
    The cached rows of the positions where `keep` (rows, width) bool is set, row by row, on the device of the batch.

    The samples of a batch lie in its rows in their order, so that their tokens one after the other are its positions
    without padding.
    """
    chosen = keep[batch.sequence >= 0].cpu()
    return cache.read(name, batch.samples)[chosen].to(keep.device)


def open_teacher(
    training: Training,
    directory: Path,
    cache: Sequence[Path] = (),
    device: torch.device | str = "cpu",
    place: Place | None = None,
    vocabulary: int | None = None,
) -> Teacher:
    """
    The teacher of a training: the model in `directory`, or the shards of the stage `cache-teacher` made of it.

    vocabulary: rows of the student's head; where the teacher's has more, which pad it, they get no probability.
    """
    if training.teacher == "live":
        return LiveTeacher(load_teacher(directory, training.precision, device, place), vocabulary)
    found = Cache(cache)
    if training.cache.kind == "topk":
        return CachedTopKTeacher(found)
    head = read_head(directory, getattr(torch, training.precision))
    head = head.cut(vocabulary or head.vocabulary)
    moved = {"weight": head.weight.to(device), "bias": None if head.bias is None else head.bias.to(device)}
    return CachedHiddenTeacher(found, replace(head, **moved))
