"""The product with a packed weight, by the kernel that this machine has."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from bitdistiller.kernels.packed import cpu
from bitdistiller.kernels.packed.lanes import unpack_lanes
from bitdistiller.kernels.packed.matrix import PackedMatrix

EXPANDED_ROWS = 512
"""Rows that are dequantised at once where there is no kernel, or the batch is large."""
LARGE_BATCH = {"cpu": 24, "cuda": 65}
"""Rows of the input from which on a dequantised block and a library's product are faster."""


def values(weight: PackedMatrix, first: int = 0, last: int | None = None) -> Tensor:
    """The rows first .. last - 1 of the weight, float32 (rows, columns)."""
    part = slice(first, weight.rows if last is None else last)
    if weight.codes.device.type == "cpu" and cpu.works():
        return cpu.expand(weight, part)[:, : weight.columns]
    groups = unpack_lanes(weight.codes[part], weight.bits, weight.filled).unflatten(1, (-1, weight.group_size))
    level, scale = weight.levels[groups.long()], weight.scale[part]
    if weight.zero_point is not None:
        level = level - weight.zero_point[part].unsqueeze(-1)
    chosen = torch.where(level < 0, scale[..., :1], scale[..., -1:]) if scale.shape[-1] == 2 else scale
    return (level * chosen).flatten(1)[:, : weight.columns]


def multiply(x: Tensor, weight: PackedMatrix) -> Tensor:
    """`x @ weight.T` for x (n, columns), in the dtype of x; the sums are float32."""
    kind = x.device.type
    if len(x) < LARGE_BATCH.get(kind, 1):
        filled = F.pad(x, (0, weight.filled - weight.columns)) if weight.filled > weight.columns else x
        if kind == "cpu" and cpu.works():
            return cpu.multiply(filled, weight).to(x.dtype)
        if kind == "cuda" and triton_works():
            from bitdistiller.kernels.triton.packed import multiply as on_gpu

            return on_gpu(filled, weight)
    parts = range(0, weight.rows, EXPANDED_ROWS)
    return torch.cat(
        [F.linear(x, values(weight, i, min(i + EXPANDED_ROWS, weight.rows)).to(x.dtype)) for i in parts], -1
    )


@cache
def triton_works() -> bool:
    """Whether the package triton is there."""
    return find_spec("triton") is not None
