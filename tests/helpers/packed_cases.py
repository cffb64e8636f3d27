"""Packed weights of every format and width, with the product that they must give."""

from __future__ import annotations

import torch
from torch import Tensor

from bitdistiller.formats import get_format
from bitdistiller.kernels.packed import PackedMatrix
from bitdistiller.layers import PackedLinear

FORMATS = ("int2", "int3", "int4", "nf2", "nf3", "nf4")


def packed(name: str, rows: int, columns: int, group_size: int, device: str = "cpu") -> tuple[PackedMatrix, Tensor]:
    """A random weight in a format: packed, and its values in float64."""
    generator = torch.Generator().manual_seed(rows + columns)
    weight = torch.randn(rows, columns, generator=generator)
    number_format = get_format(name, "bfloat16")
    parts = number_format.quantize(weight, group_size)
    layer = PackedLinear.from_codes(*parts, number_format, group_size).to(device)
    return layer.packed, number_format.dequantize(*parts, group_size).double().to(device)


def signs(rows: int, columns: int, device: str = "cpu") -> tuple[PackedMatrix, Tensor]:
    """Random signs, one scale a row; bit 1 is -1."""
    generator = torch.Generator().manual_seed(columns)
    codes = torch.randint(2, (rows, columns), generator=generator, dtype=torch.uint8)
    scale = torch.rand(rows, 1, generator=generator) + 0.5
    matrix = PackedMatrix.pack(codes.to(device), 1, scale.to(device), None, [1.0, -1.0], columns)
    return matrix, ((1 - 2 * codes.double()) * scale.double()).to(device)


def error(found: Tensor, x: Tensor, values: Tensor) -> float:
    """Largest error of `x @ values.T`, as a share of the largest entry."""
    expected = x.double() @ values.T
    return float((found.double() - expected).abs().max() / expected.abs().max())
