"""
How codes lie in memory for the packed kernels: 16 columns to 16 words, so that nothing is moved between lanes.

Word l of a block holds, from its lowest bits on, the codes of columns l, 16 + l, 32 + l and so on; 3-bit codes take
three words that follow each other at a distance of 16. A block is 512, 256, 512 or 128 columns of 1, 2, 3 or 4 bits;
the last one of a row is filled up with zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 16
"""Columns whose codes lie at one place in 16 consecutive words."""
STRETCH = 64
"""Columns are filled up to, and groups must be whole multiples of, this many."""
ROWS = 1024
"""Rows that are repacked at once."""


def words_of(bits: int) -> int:
    """Words that hold the codes of one lane of a block."""
    return 3 if bits == 3 else 1


def block_columns(bits: int) -> int:
    """Columns of a block."""
    return CHUNK * 32 * words_of(bits) // bits


def pack_lanes(codes: Tensor, bits: int) -> Tensor:
    """int32 (rows, words) of codes (rows, columns) uint8 of 1 to 4 bits."""
    return torch.cat([_pack(part, bits) for part in codes.split(ROWS)])


def _pack(codes: Tensor, bits: int) -> Tensor:
    columns, words = block_columns(bits), words_of(bits)
    chunks = F.pad(codes, (0, -codes.shape[1] % columns)).unflatten(1, (-1, columns // CHUNK, CHUNK))
    found = torch.zeros(len(codes), chunks.shape[1], words + 1, CHUNK, dtype=torch.int64, device=codes.device)
    for chunk in range(columns // CHUNK):
        word, bit = divmod(bits * chunk, 32)
        shifted = chunks[:, :, chunk].long() << bit
        found[:, :, word] |= shifted & 0xFFFFFFFF
        found[:, :, word + 1] |= shifted >> 32
    found = found[:, :, :words]
    return torch.where(found >= 1 << 31, found - (1 << 32), found).to(torch.int32).flatten(1)


def unpack_lanes(packed: Tensor, bits: int, columns: int) -> Tensor:
    """The codes (rows, columns) uint8 that `pack_lanes` packed."""
    words = words_of(bits)
    blocks = packed.unflatten(1, (-1, words, CHUNK)).long() & 0xFFFFFFFF
    blocks = F.pad(blocks, (0, 0, 0, 1))
    chunks = []
    for chunk in range(block_columns(bits) // CHUNK):
        word, bit = divmod(bits * chunk, 32)
        both = blocks[:, :, word] | blocks[:, :, word + 1] << 32
        chunks.append((both >> bit & 2**bits - 1).to(torch.uint8))
    return torch.stack(chunks, dim=2).flatten(1)[:, :columns].contiguous()
