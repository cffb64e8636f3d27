"""The sequences that blocks are reconstructed on."""

from __future__ import annotations

import torch
from torch import Tensor

from bitdistiller.config import WarmStartRecipe
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation.steps import split
from bitdistiller.errors import InputError


def training_rows(file: TokenFile, recipe: WarmStartRecipe, context: int) -> Tensor:
    """
    Rows (n, length) int64 of the mix's training samples, joined in their order and cut; whole batches only.

    length is the recipe's, or the model's context where that is shorter. Samples in one row see each other, as in
    calibration. Raises InputError when there is not one whole batch.
    """
    length = min(recipe.max_length, context)
    options = recipe.warm_start
    begin = int(file.offsets[split(len(file), recipe.evaluation_fraction)])
    count = min(options.samples, (int(file.offsets[-1]) - begin) // length)
    count -= count % options.batch_size
    if not count:
        raise InputError(
            f"warm_start: {min(options.samples, (int(file.offsets[-1]) - begin) // length)} sequences of {length} "
            f"tokens are less than one batch; accepted: a batch_size of fewer than {options.batch_size}, more samples"
        )
    return _span(file, begin, count * length).view(count, length)


def _span(file: TokenFile, begin: int, tokens: int) -> Tensor:
    parts, total, sample = [], 0, int((file.offsets <= begin).sum()) - 1
    while total < tokens:
        parts.append(file.ids(sample))
        total += len(parts[-1])
        sample += 1
    return torch.cat(parts)[:tokens]
