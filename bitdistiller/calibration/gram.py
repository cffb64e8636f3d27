"""Gram matrices of layer inputs: all that the clip search needs to know about the calibration tokens."""

from typing import NamedTuple

import torch
from torch import Tensor

from bitdistiller.formats.grouping import pad_columns, resolve_group_size
from bitdistiller.kernels.eager import arithmetic_dtype

TOKENS_AT_ONCE = 4096


def gram_matrix(x: Tensor, group_size: int | None) -> Tensor:
    """`G = X^T X` of every group of input columns: x (tokens, in) -> (groups, g, g) float32, not divided by tokens.

    Grams of disjoint sets of tokens add up, so batches and shards can be summed. Raises InputError when `group_size`
    does not divide the input features.
    """
    return _gram(x, group_size).float()


def gram_root(gram: Tensor) -> Tensor:
    """`R` with `R R^T = G` for each of the Gram matrices (groups, g, g), in float64.

    `d^T G d = |d R|^2` is a sum of squares, so that a float32 product keeps its relative precision even where a few
    input channels dominate. Eigenvalues below zero are the rounding of a singular matrix and count as zero.
    """
    values, vectors = torch.linalg.eigh(gram.double())
    return vectors * values.clamp(min=0).sqrt().unsqueeze(-2)


class GramOptions(NamedTuple):
    """Which tokens count and how their columns are grouped."""

    group_size: int | None
    stride: int = 1
    """Every stride-th token counts, beginning with the first of all."""
    before: int = 0
    """Tokens of other shards that came earlier."""
    pad: bool = False
    """Fill the last group up with zeros where the group size does not divide the input features."""


class GramAccumulator:
    """The Gram matrices of one layer input, summed over batches in float64; takes the fields of GramOptions.

    `tokens` is how many have counted here.
    """

    def __init__(self, group_size: int | None, stride: int = 1, before: int = 0, pad: bool = False) -> None:
        self.group_size, self.stride, self.pad = group_size, stride, pad
        self.tokens = 0
        self._seen = before
        self._sum: Tensor | None = None

    def add(self, x: Tensor, importance: Tensor | None = None) -> None:
        """Count a batch of inputs (..., in); `importance` (...), not negative, weights its tokens."""
        rows = x.detach().reshape(-1, x.shape[-1])
        chosen = slice(-self._seen % self.stride, None, self.stride)
        kept = rows[chosen]
        if importance is not None:
            kept = kept * importance.detach().reshape(-1, 1)[chosen].sqrt()
        for part in kept.split(TOKENS_AT_ONCE):
            gram = _gram(part, self.group_size, self.pad).double()
            self._sum = gram if self._sum is None else self._sum.add_(gram)
        self._seen += len(rows)
        self.tokens += len(kept)

    def gram(self) -> Tensor:
        """The sum so far, (groups, g, g) float32. Raises RuntimeError before the first batch."""
        if self._sum is None:
            raise RuntimeError("no token reached this layer")
        return self._sum.float()


def _gram(x: Tensor, group_size: int | None, pad: bool = False) -> Tensor:
    size = resolve_group_size(x.shape[-1], group_size, "x", pad)
    columns = pad_columns(x.to(arithmetic_dtype(x.dtype)), size).unflatten(1, (-1, size)).transpose(0, 1)
    return columns.transpose(1, 2) @ columns
