"""Fused fake quantisation: Triton, compiled and eager forms of one formula, chosen by one switch."""

from types import ModuleType

import torch
from torch import Tensor

from bitdistiller.kernels import compiled, eager
from bitdistiller.kernels.compiled import works as can_compile
from bitdistiller.kernels.formula import Formula, TritonKernels
from bitdistiller.kernels.switch import choose, using, worth_compiling

__all__ = ["Formula", "TritonKernels", "backward", "can_compile", "choose", "forward", "using", "worth_compiling"]


def forward(formula: Formula, groups: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Quantised values (n, group_size) in `dtype` and scales (n, scales) of groups (n, group_size) of weights.

    Arithmetic is float32, or float64 for float64 groups; the values are rounded once to `dtype`.
    """
    return _form(formula, groups).forward(formula, groups, dtype)


def backward(formula: Formula, groups: Tensor, upstream: Tensor, scale_grad: bool) -> Tensor:
    """The gradient (n, group_size), in the dtype of `groups`, for an upstream gradient of any floating-point dtype."""
    return _form(formula, groups).backward(formula, groups, upstream, scale_grad)


def _form(formula: Formula, groups: Tensor) -> ModuleType:
    chosen = choose(formula, groups)
    if chosen == "triton":
        from bitdistiller.kernels.triton import launch

        return launch
    return compiled if chosen == "compiled" else eager
