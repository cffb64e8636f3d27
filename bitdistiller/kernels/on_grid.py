"""Formulas that also take the scales and zero points of their groups, compiled or run block by block."""

from collections.abc import Callable, Hashable
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from bitdistiller.kernels import compiled
from bitdistiller.kernels.eager import arithmetic_dtype, chunks
from bitdistiller.kernels.switch import worth_compiling

Gradients = tuple[Tensor, Tensor, Tensor]


class GridFormula(Hashable, Protocol):
    """A fake quantiser on groups (n, group_size), scales (n, 1) and zero points (n, 1), all in arithmetic dtype."""

    def forward_formula(self, groups: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised values (n, group_size), and numbers (n, 1) that are NaN or infinite where a weight is."""

    def backward_formula(self, groups: Tensor, scale: Tensor, zero_point: Tensor, upstream: Tensor) -> Gradients:
        """The gradients of weights (n, group_size), scales (n, 1) and zero points (n, 1)."""


def forward(
    formula: GridFormula, groups: Tensor, scale: Tensor, zero_point: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Values (n, group_size) in `dtype` and the formula's second result, of groups in any floating-point dtype."""
    if worth_compiling(groups):
        return compiled.call(_forward(formula, dtype), groups, scale, zero_point)
    values, checks = torch.empty_like(groups, dtype=dtype), []
    working = arithmetic_dtype(groups.dtype)
    for rows in chunks(groups):
        block = (tensor[rows].to(working) for tensor in (groups, scale, zero_point))
        values[rows], check = formula.forward_formula(*block)
        checks.append(check)
    return values, torch.cat(checks)


def backward(formula: GridFormula, groups: Tensor, scale: Tensor, zero_point: Tensor, upstream: Tensor) -> Gradients:
    """The three gradients, each in the dtype of what it belongs to."""
    if worth_compiling(groups):
        return compiled.call(_backward(formula), groups, scale, zero_point, upstream)
    gradients = torch.empty_like(groups), torch.empty_like(scale), torch.empty_like(zero_point)
    working = arithmetic_dtype(groups.dtype)
    for rows in chunks(groups):
        block = (tensor[rows].to(working) for tensor in (groups, scale, zero_point, upstream))
        for gradient, part in zip(gradients, formula.backward_formula(*block), strict=True):
            gradient[rows] = part
    return gradients


@cache
def _forward(formula: GridFormula, dtype: torch.dtype) -> Callable[..., tuple[Tensor, Tensor]]:
    def fused(groups: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        working = arithmetic_dtype(groups.dtype)
        values, check = formula.forward_formula(groups.to(working), scale.to(working), zero_point.to(working))
        return values.to(dtype), check

    return compiled.compile_function(fused)


@cache
def _backward(formula: GridFormula) -> Callable[..., Gradients]:
    def fused(groups: Tensor, scale: Tensor, zero_point: Tensor, upstream: Tensor) -> Gradients:
        working = arithmetic_dtype(groups.dtype)
        tensors = groups, scale, zero_point
        found = formula.backward_formula(*(tensor.to(working) for tensor in (*tensors, upstream)))
        weight, *grid = (gradient.to(tensor.dtype) for gradient, tensor in zip(found, tensors, strict=True))
        return weight, grid[0], grid[1]

    return compiled.compile_function(fused)
