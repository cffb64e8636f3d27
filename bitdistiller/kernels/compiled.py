"""Formulas compiled by torch.compile: one pass over memory, nothing materialised in between."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bitdistiller.kernels.eager import arithmetic_dtype
from bitdistiller.kernels.formula import Formula

logger = logging.getLogger(__name__)

# A fused kernel would otherwise skip the rounding of scales to bfloat16.
OPTIONS = {"emulate_precision_casts": True}
VARIANTS = 256
"""Formulas, dtypes and group sizes that one process may compile; past that torch would fall back without a word."""


def forward(formula: Formula, groups: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As `eager.forward`."""
    return call(_forward(formula, dtype), groups)


def backward(formula: Formula, groups: Tensor, upstream: Tensor, scale_grad: bool) -> Tensor:
    """As `eager.backward`."""
    return call(_backward(formula, scale_grad), groups, upstream)


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, a pure function of tensors, compiled with exact rounding; use it through `call`."""
    return torch.compile(function, options=OPTIONS, fullgraph=True)


def call(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """Run a compiled function on tensors whose first dimension may differ from call to call."""
    for tensor in tensors:
        torch._dynamo.mark_dynamic(tensor, 0)
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=VARIANTS):
        return function(*tensors)


@cache
def works() -> bool:
    """Whether this machine can compile for the CPU: it takes a C++ compiler and Python's headers; tried once."""
    try:
        call(compile_function(lambda x: x + 1), torch.zeros(2, 2))
    except Exception as error:
        logger.info("no C++ compiler that works, eager kernels instead (%s)", str(error).strip().split("\n")[0][:120])
        return False
    return True


@cache
def _forward(formula: Formula, dtype: torch.dtype) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def fused(groups: Tensor) -> tuple[Tensor, Tensor]:
        values, scale = formula.forward_formula(groups.to(arithmetic_dtype(groups.dtype)))
        return values.to(dtype), scale

    return compile_function(fused)


@cache
def _backward(formula: Formula, scale_grad: bool) -> Callable[[Tensor, Tensor], Tensor]:
    def fused(groups: Tensor, upstream: Tensor) -> Tensor:
        working = arithmetic_dtype(groups.dtype)
        return formula.backward_formula(groups.to(working), upstream.to(working), scale_grad).to(groups.dtype)

    return compile_function(fused)
