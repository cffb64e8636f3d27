"""Formulas run operation by operation, over blocks of groups that keep temporaries in the processor's cache."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from bitdistiller.kernels.formula import Formula

CPU_CHUNK = 1 << 19
DEVICE_CHUNK = 1 << 25


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays float64; every other input is quantised in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def chunk_elements(tensor: Tensor) -> int:
    """Elements worked on at once on the tensor's device."""
    return CPU_CHUNK if tensor.device.type == "cpu" else DEVICE_CHUNK


@cache
def keep_freed_memory() -> None:
    """Let the C library keep what temporaries free, so that the next block does not fault every page in again.

    glibc raises its limits to the largest block that was mapped and freed, here 28 MiB, which are never touched.
    Without it the backward of a large weight took up to four times as long.
    """
    torch.empty(7 << 20, dtype=torch.float32)


def forward(formula: Formula, groups: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values (n, group_size) in `dtype` and scales (n, scales) in the arithmetic dtype of groups (n, group_size)."""
    output, scales = torch.empty_like(groups, dtype=dtype), []
    for rows in chunks(groups):
        output[rows], scale = formula.forward_formula(_upcast(groups[rows]))
        scales.append(scale)
    return output, torch.cat(scales)


def backward(formula: Formula, groups: Tensor, upstream: Tensor, scale_grad: bool) -> Tensor:
    """The gradient (n, group_size) in the dtype of `groups`."""
    output = torch.empty_like(groups)
    for rows in chunks(groups):
        above = upstream[rows].to(arithmetic_dtype(groups.dtype))
        output[rows] = formula.backward_formula(_upcast(groups[rows]), above, scale_grad)
    return output


def _upcast(groups: Tensor) -> Tensor:
    return groups.to(arithmetic_dtype(groups.dtype))


def chunks(groups: Tensor) -> Iterator[slice]:
    """Slices of groups (n, group_size) that are worked on at once."""
    keep_freed_memory()
    step = max(1, chunk_elements(groups) // groups.shape[1])
    for start in range(0, len(groups), step):
        yield slice(start, start + step)
