"""Fake quantisation as one autograd function, whatever the number format and whichever kernel runs it."""

from typing import Any

import torch
from torch import Tensor

from bitdistiller import kernels
from bitdistiller.formats.grid import require_finite


class StraightThrough(torch.autograd.Function):
    """Quantised values of groups (out, groups, group_size) with the gradient of the formula; keeps only the weight."""

    @staticmethod
    def forward(
        ctx: Any, groups: Tensor, formula: kernels.Formula, scale_grad: bool, name: str, dtype: torch.dtype
    ) -> Tensor:
        values, scale = kernels.forward(formula, groups.flatten(0, 1), dtype)
        require_finite(scale.view(len(groups), -1), name)
        ctx.formula, ctx.scale_grad = formula, scale_grad
        ctx.save_for_backward(groups)
        return values.view(groups.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (groups,) = ctx.saved_tensors
        flat = groups.flatten(0, 1), upstream.contiguous().flatten(0, 1)
        gradient = kernels.backward(ctx.formula, *flat, ctx.scale_grad)
        return gradient.view(groups.shape), None, None, None, None
