"""A weight that stays packed, and the product with it by the kernel that this machine has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bitdistiller.errors import InputError
from bitdistiller.kernels.packed import cpu
from bitdistiller.kernels.packed.lanes import STRETCH, pack_lanes, unpack_lanes

EXPANDED_ROWS = 512
"""Rows that are dequantised at once where there is no kernel, or the batch is large."""
LARGE_BATCH = {"cpu": 24, "cuda": 65}
"""Rows of the input from which on a dequantised block and a library's product are faster."""
LEVELS = 16


@dataclass(frozen=True)
class PackedMatrix:
    """
    The weight (rows, columns) `(level[code] - zero_point) * scale`, in float32 wherever it is multiplied.

    codes: int32 (rows, words), see `lanes`. scale: float32 (rows, groups, 1), or (rows, groups, 2) for levels below
    zero and for the others. zero_point: uint8 (rows, groups) or None. levels: float32 (16,), those of the format
    repeated. `filled`: columns with those that fill up the last stretch; x is filled with zeros.
    """

    bits: int
    columns: int
    filled: int
    group_size: int
    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None
    levels: Tensor

    @classmethod
    def pack(
        cls, codes: Tensor, bits: int, scale: Tensor, zero_point: Tensor | None, levels: list[float], group_size: int
    ) -> PackedMatrix:
        """
        Of codes (rows, columns) uint8, scales (rows, groups[, 2]) and zero points (rows, groups).

        Raises InputError for widths above 4 bits, and for groups that are no multiple of 64 unless there is one a row.
        """
        rows, columns = codes.shape
        filled = -(-columns // STRETCH) * STRETCH
        if not 1 <= bits <= 4:
            raise InputError(f"packed weights: {bits} bits; accepted: 1 to 4")
        if group_size == columns:
            group_size = filled
        if group_size % STRETCH or filled % group_size:
            raise InputError(f"packed weights: groups of {group_size} of {columns}; accepted: multiples of {STRETCH}")
        repeated = torch.tensor(levels, dtype=torch.float32).repeat(LEVELS // len(levels)).to(codes.device)
        return cls(
            bits,
            columns,
            filled,
            group_size,
            pack_lanes(codes, bits),
            scale.float().view(rows, filled // group_size, -1).contiguous(),
            None if zero_point is None else zero_point.to(torch.uint8).contiguous(),
            repeated,
        )

    @property
    def rows(self) -> int:
        """Output features."""
        return len(self.codes)

    def values(self, first: int = 0, last: int | None = None) -> Tensor:
        """The rows first .. last - 1 of the weight, float32."""
        part = slice(first, self.rows if last is None else last)
        if self.codes.device.type == "cpu" and cpu.works():
            return cpu.expand(self, part)[:, : self.columns]
        groups = unpack_lanes(self.codes[part], self.bits, self.filled).unflatten(1, (-1, self.group_size))
        level, scale = self.levels[groups.long()], self.scale[part]
        if self.zero_point is not None:
            level = level - self.zero_point[part].unsqueeze(-1)
        chosen = torch.where(level < 0, scale[..., :1], scale[..., -1:]) if scale.shape[-1] == 2 else scale
        return (level * chosen).flatten(1)[:, : self.columns]


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
        [F.linear(x, weight.values(i, min(i + EXPANDED_ROWS, weight.rows)).to(x.dtype)) for i in parts], -1
    )


def triton_works() -> bool:
    """Whether the package triton is there."""
    from importlib.util import find_spec

    return find_spec("triton") is not None
