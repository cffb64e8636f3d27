"""A weight that stays packed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.kernels.packed.lanes import STRETCH, pack_lanes

LEVELS = 16


@dataclass(frozen=True)
class PackedMatrix:
    """
    The weight (rows, columns) `(level[code] - zero_point) * scale`, in float32 wherever it is multiplied.

    codes: int32 (rows, words), see `lanes`. scale: float32 (rows, groups, 1), or (rows, groups, 2) for levels below
    zero and for the others. zero_point: uint8 (rows, groups) or None. points: the levels of the format; levels: float32
    (16,), the same repeated. `filled`: columns with those that fill up the last stretch; x is filled with zeros.
    """

    bits: int
    columns: int
    filled: int
    group_size: int
    points: tuple[float, ...]
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
            tuple(levels),
            pack_lanes(codes, bits),
            scale.float().view(rows, filled // group_size, -1).contiguous(),
            None if zero_point is None else zero_point.to(torch.uint8).contiguous(),
            repeated,
        )

    @property
    def rows(self) -> int:
        """Output features."""
        return len(self.codes)
