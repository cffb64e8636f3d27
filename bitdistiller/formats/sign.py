"""Signs as bits, eight columns to a byte: OneBit's packing (arXiv 2402.11295 and its released code)."""

from __future__ import annotations

import torch
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.formats.packing import pack_codes, unpack_codes

PER_BYTE = 8


def pack_signs(weight: Tensor) -> Tensor:
    """
    Signs of a weight (out, in) as uint8 (out, in / 8): column 8 k + j is bit j, lowest first, and 1 stands for -1.

    A weight of 0, whose sign is 0, becomes +1: `zero_signs` counts them. The released files have these bytes as int8.
    Raises InputError when 8 does not divide the input features, and for NaN.
    """
    if weight.ndim != 2 or weight.shape[1] % PER_BYTE:
        raise InputError(
            f"signs of shape {tuple(weight.shape)}; accepted: a matrix with a multiple of 8 input features"
        )
    if weight.isnan().any():
        raise InputError("NaN has no sign")
    return pack_codes((weight < 0).to(torch.uint8), 1)


def check_whole_bytes(in_features: int, name: str) -> None:
    """Raises InputError, naming the layer, where the signs of a row do not fill whole bytes."""
    if in_features % PER_BYTE:
        raise InputError(f"{name}: {in_features} input features; signs need a multiple of {PER_BYTE}")


def unpack_signs(packed: Tensor) -> Tensor:
    """Signs (out, in) float32, 1 and -1, of bytes (out, in / 8), uint8 or int8 as in the released files."""
    if packed.dtype not in (torch.uint8, torch.int8):
        raise InputError(f"packed signs: {packed.dtype}; accepted: uint8, or int8")
    columns = PER_BYTE * packed.shape[-1]
    return 1.0 - 2.0 * unpack_codes(packed.contiguous().view(torch.uint8), 1, columns).float()


def zero_signs(weight: Tensor) -> int:
    """How many weights are exactly 0: those whose sign packing changes, from 0 to 1."""
    return int((weight == 0).sum())
