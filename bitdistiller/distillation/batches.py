"""Micro-batches: token sequences of the token file laid out as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation.layouts import MicroBatch, Row
from bitdistiller.distillation.losses.base import IGNORE, StepCounts

EMPTY_WIDTH = 2


@dataclass(frozen=True)
class Batch:
    """
    One micro-batch; every tensor is (rows, width).

    A row holds one sequence, or several that a model without `attention_mask` keeps apart because `position_ids`
    restart at 0 with each of them. Where a row is not full, its end is padding.
    """

    input_ids: Tensor
    """int64; the padding token on padding."""
    position_ids: Tensor
    """int64; restart at 0 with each sequence and with the padding."""
    attention_mask: Tensor | None
    """int64, 1 on tokens; None where sequences share rows."""
    labels: Tensor
    """int64; the token itself, -100 where it does not count."""
    targets: Tensor
    """int64; the label of the next position of the same sequence, -100 where there is none."""
    completion: Tensor
    """bool; tokens that the teacher wrote itself."""
    sequence: Tensor
    """int64; index of the position's sequence within this micro-batch, -1 on padding."""
    samples: tuple[int, ...]
    """Index in the token file of every sequence."""

    def to(self, device: torch.device | str) -> Batch:
        """The same micro-batch on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    @property
    def tokens(self) -> int:
        """Positions that are not padding."""
        return int((self.sequence >= 0).sum())

    @property
    def positions(self) -> int:
        """Positions in all."""
        return self.input_ids.numel()

    @property
    def model_inputs(self) -> dict[str, Tensor | bool | None]:
        """Arguments of a model's forward pass; it must not cache, or it would not keep packed sequences apart."""
        names = ("input_ids", "position_ids", "attention_mask")
        return {name: getattr(self, name) for name in names} | {"use_cache": False}


def collate(file: TokenFile, rows: MicroBatch, *, mask_prompt: bool, packed: bool, width: int | None = None) -> Batch:
    """
    The samples of `rows`, each row right-padded to the fullest (or to `width`).

    No rows give an empty micro-batch: one row of padding on which nothing counts, for a process that is to make a
    forward pass like the others.
    """
    used = max((sum(int(file.lengths[sample]) for sample in row) for row in rows), default=EMPTY_WIDTH)
    shape = (max(len(rows), 1), width or used)
    batch = _blank(shape, file.pad, packed)
    index = 0
    for number, row in enumerate(rows):
        _fill(batch, number, row, index, file, mask_prompt)
        index += len(row)
    if not packed and not rows:
        batch.attention_mask.fill_(1)
    return replace(batch, samples=tuple(sample for row in rows for sample in row))


def _blank(shape: tuple[int, int], pad: int, packed: bool) -> Batch:
    def full(value: int) -> Tensor:
        return torch.full(shape, value, dtype=torch.int64)

    return Batch(
        input_ids=full(pad),
        position_ids=torch.arange(shape[1]).repeat(shape[0], 1),
        attention_mask=None if packed else full(0),
        labels=full(IGNORE),
        targets=full(IGNORE),
        completion=torch.zeros(shape, dtype=torch.bool),
        sequence=full(-1),
        samples=(),
    )


def _fill(batch: Batch, number: int, row: Row, index: int, file: TokenFile, mask_prompt: bool) -> None:
    begin = 0
    for place, sample in enumerate(row):
        ids = file.ids(sample)
        start, end = file.completions[sample].tolist()
        here = (number, slice(begin, begin + len(ids)))
        labels = ids.clone()
        labels[: start if mask_prompt else 0] = IGNORE
        batch.input_ids[here], batch.labels[here] = ids, labels
        batch.targets[number, begin : begin + len(ids) - 1] = labels[1:]
        batch.position_ids[here] = torch.arange(len(ids))
        batch.completion[number, begin + start : begin + end] = True
        batch.sequence[here] = index + place
        if batch.attention_mask is not None:
            batch.attention_mask[here] = 1
        begin += len(ids)
    batch.position_ids[number, begin:] = torch.arange(batch.position_ids.shape[1] - begin)


def count(file: TokenFile, samples: list[int], mask_prompt: bool) -> StepCounts:
    """Sequences, labels and targets of some samples together, from their lengths alone."""
    masked = [int(file.completions[sample][0]) if mask_prompt else 0 for sample in samples]
    labels = sum(int(file.lengths[sample]) - skipped for sample, skipped in zip(samples, masked, strict=True))
    return StepCounts(len(samples), labels, labels - sum(skipped == 0 for skipped in masked))
