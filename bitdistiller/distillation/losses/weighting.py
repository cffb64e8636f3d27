"""Weights of positions that depend on the teacher."""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 10.0


def hardness(label_log_probability: Tensor, counted: Tensor, sequence: Tensor) -> Tensor:
    """
    Softmax, over the counted positions of each sequence, of the teacher's cross-entropy of the next label / 10.

    All arguments (rows, width): floats, bool, and the index of the sequence int64 (-1 where there is none).
    The weights of a sequence add up to 1; positions that do not count have weight 0.
    """
    of = sequence[counted]
    values = -label_log_probability[counted] / TEMPERATURE
    number = int(sequence.max()) + 1 if sequence.numel() else 0
    largest = values.new_full((number,), -torch.inf).scatter_reduce(0, of, values, "amax")
    shares = (values - largest[of]).exp()
    shares = shares / shares.new_zeros(number).index_add(0, of, shares)[of]
    return torch.zeros_like(label_log_probability).masked_scatter(counted, shares)
