"""Launching a format's two kernels, `forward(weight, output, scale)` and `backward(weight, upstream, output)`."""

from typing import Any

import torch
import triton
from torch import Tensor

from bitdistiller.kernels.formula import Formula

TILE = 4096
"""Weights that one program holds in registers, or one group where that is larger."""


def tile(size: int) -> dict[str, Any]:
    """Constants and launch options for groups of `size` weights: whole groups a program, columns a power of two."""
    columns = triton.next_power_of_2(size)
    rows = max(1, TILE // columns)
    return {"SIZE": size, "ROWS": rows, "COLUMNS": columns, "num_warps": 4 if rows * columns <= TILE else 8}


def forward(formula: Formula, groups: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As `eager.forward`, for float32 and narrower groups."""
    kernels, groups, options = formula.triton_kernels(), groups.contiguous(), tile(groups.shape[1])
    output = torch.empty_like(groups, dtype=dtype)
    scale = torch.empty(len(groups), kernels.scales, dtype=torch.float32, device=groups.device)
    blocks = (triton.cdiv(len(groups), options["ROWS"]),)
    kernels.forward[blocks](groups, output, scale, len(groups), **kernels.constants, **options)
    return output, scale


def backward(formula: Formula, groups: Tensor, upstream: Tensor, scale_grad: bool) -> Tensor:
    """As `eager.backward`, for float32 and narrower groups."""
    kernels, groups, options = formula.triton_kernels(), groups.contiguous(), tile(groups.shape[1])
    output, upstream = torch.empty_like(groups), upstream.contiguous()
    blocks = (triton.cdiv(len(groups), options["ROWS"]),)
    constants = {"SCALE_GRAD": scale_grad, **kernels.constants}
    kernels.backward[blocks](groups, upstream, output, len(groups), **constants, **options)
    return output
