"""Training and evaluation sequences as padded batches."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from bitdistiller.data.tokenising import Sequence
from bitdistiller.distillation.losses.base import IGNORE
from bitdistiller.errors import InputError


class Sequences(Dataset):
    """Sequences by index; the collator pads them."""

    def __init__(self, sequences: list[Sequence]) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Sequence:
        return self.sequences[index]


def split(sequences: list[Sequence], fraction: float) -> tuple[list[Sequence], list[Sequence]]:
    """The training part and the evaluation part, which is the first `fraction` of the mix (docs/method.md 4)."""
    held_out = round(len(sequences) * fraction)
    if held_out == len(sequences):
        raise InputError(
            f"train: the mix has only {len(sequences)} samples; nothing is left beside the evaluation split"
        )
    return sequences[held_out:], sequences[:held_out]


def collate(sequences: list[Sequence], pad: int) -> dict[str, Any]:
    """
    A right-padded batch: input_ids, attention_mask, labels (batch, longest) int64; labels are -100 on padding.

    Prompt tokens count as targets (docs/method.md 4). `completion` (bool) marks the labels the teacher wrote itself.
    """
    width = max(len(sequence.input_ids) for sequence in sequences)
    shape = (len(sequences), width)
    input_ids = torch.full(shape, pad)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORE)
    completion = torch.zeros(shape, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        length = len(sequence.input_ids)
        input_ids[row, :length] = torch.tensor(sequence.input_ids)
        labels[row, :length] = input_ids[row, :length]
        attention_mask[row, :length] = 1
        completion[row, sequence.completion_start : sequence.completion_end] = True
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, "completion": completion}
