"""Two block types of GGUF files that can hold asymmetric integer groups: Q4_1 and Q2_0 (docs/formats.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitdistiller.export.conversion.half import to_half
from bitdistiller.export.conversion.unfit import Unfit
from bitdistiller.formats import pack_codes, unpack_codes


@dataclass(frozen=True)
class BlockType(ABC):
    """
    `size` consecutive weights of a row and the float16 numbers they share, in `bytes` bytes.

    number: of the type in tensor headers (`ggml_type`). file_type: of a file of such tensors (`general.file_type`).
    """

    name: ClassVar[str]
    size: ClassVar[int]
    bytes: ClassVar[int]
    number: ClassVar[int]
    file_type: ClassVar[int]

    @abstractmethod
    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        """
        Blocks (n, bytes) uint8 of codes (n, size) uint8, scales and zero points (n,) float32, and which are inexact.

        An inexact block decodes to other values than `(q - z) s`.
        """

    @abstractmethod
    def decode(self, blocks: Tensor) -> Tensor:
        """Values (n, size) float32 of blocks (n, bytes) uint8, in the arithmetic of the engine."""

    def tensor(self, codes: Tensor, scale: Tensor, zero_point: Tensor, name: str) -> Tensor:
        """
        A layer (out, in / size, bytes) uint8 from its codes (out, in), scales and zero points (out, groups).

        Raises Unfit, naming the layer, where the type does not hold its values exactly.
        """
        rows, columns = codes.shape
        per_group = columns // scale.shape[1] / self.size
        if per_group < 1 or per_group % 1:
            raise Unfit(
                f"{name}: groups of {columns // scale.shape[1]} are not whole {self.name} blocks of {self.size}"
            )
        shared = [t.to(torch.float32).repeat_interleave(int(per_group), dim=1).flatten() for t in (scale, zero_point)]
        blocks, inexact = self.encode(codes.reshape(-1, self.size), *shared)
        if inexact.any():
            raise Unfit(
                f"{name}: {int(inexact.sum())} of {inexact.numel()} blocks are not exact in {self.name}; {self.remedy}"
            )
        return blocks.view(rows, columns // self.size, self.bytes)

    remedy: ClassVar[str]
    """What to do where it is not exact."""


class Q4_1(BlockType):
    """`d q + m` with 4-bit codes: `d = s`, `m = -z s`. Byte j holds weight j low and weight j + 16 high."""

    name, size, bytes, number, file_type = "Q4_1", 32, 20, 3, 3
    remedy = "its scale or zero point times scale does not fit float16; accepted: int2 or int3, scale_dtype: bfloat16"

    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        used = (codes != zero_point.unsqueeze(-1)).any(dim=-1)
        offset = -zero_point * scale
        d, inexact_d = to_half(scale, used)
        m, inexact_m = to_half(offset, used)
        d, m = (torch.where(used, half, torch.zeros_like(half)) for half in (d, m))
        low, high = codes.chunk(2, dim=1)
        return torch.cat([_half_bytes(d), _half_bytes(m), low | high << 4], dim=1), inexact_d | inexact_m

    def decode(self, blocks: Tensor) -> Tensor:
        d, m = _halves(blocks[:, :2]), _halves(blocks[:, 2:4])
        codes = torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1)
        return codes.float() * d + m


class Q2_0(BlockType):
    """
    `d (c - 1)` with 2-bit codes c, four to a byte from the lowest bits on.

    A block with zero point 1 has `d = s`, `c = q`; one with zero point 2 has `d = -s`, `c = 3 - q`. A zero point of 0
    or 3 fits where the block does not use the level furthest from zero.
    """

    name, size, bytes, number, file_type = "Q2_0", 64, 18, 42, 41
    remedy = "they use three steps on one side of zero, or a scale that does not fit float16; take layout gguf-q4_1"

    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        steps = codes.to(torch.int8) - zero_point.to(torch.int8).unsqueeze(-1)
        upward = ((steps >= -1) & (steps <= 2)).all(dim=-1)
        downward = ((steps >= -2) & (steps <= 1)).all(dim=-1)
        used = (steps != 0).any(dim=-1)
        d, inexact = to_half(torch.where(upward, scale, -scale), used)
        steps = torch.where(upward.unsqueeze(-1), steps, -steps).clamp(-1, 2)
        packed = pack_codes((steps + 1).to(torch.uint8), 2)
        return torch.cat([_half_bytes(torch.where(used, d, torch.zeros_like(d))), packed], dim=1), (
            inexact | ~(upward | downward)
        )

    def decode(self, blocks: Tensor) -> Tensor:
        return (unpack_codes(blocks[:, 2:].contiguous(), 2, self.size).float() - 1) * _halves(blocks[:, :2])


BLOCK_TYPES: dict[str, BlockType] = {"gguf-q2_0": Q2_0(), "gguf-q4_1": Q4_1()}
"""By the name of the layout."""


def _half_bytes(values: Tensor) -> Tensor:
    return values.unsqueeze(1).view(torch.uint8)


def _halves(columns: Tensor) -> Tensor:
    return columns.contiguous().view(torch.float16).float()
