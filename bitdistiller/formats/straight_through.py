"""Fake quantisation as one autograd function, whatever the number format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bitdistiller.formats.grid import Ends, Grid, group_ends, join, require_finite
from bitdistiller.formats.grouping import Workspace, row_chunks, split_groups

if TYPE_CHECKING:
    from bitdistiller.formats.base import NumberFormat


class StraightThrough(torch.autograd.Function):
    """Quantised values with the gradient of the format; keeps the weight and a few numbers for each group."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, number_format: NumberFormat, group_size: int | None, scale_grad: bool, name: str
    ) -> Tensor:
        groups, work = split_groups(weight, group_size, name), Workspace()
        output, ends, grids = torch.empty_like(groups), [], []
        for rows in row_chunks(groups):
            block = work.upcast("block", groups[rows])
            ends.append(group_ends(block))
            grids.append(number_format.grid(ends[-1]))
            output[rows] = number_format.values(block, grids[-1], work)
        grid = join(grids)
        require_finite(grid.scale, name)
        ctx.number_format, ctx.scale_grad, ctx.shape = number_format, scale_grad, groups.shape
        ctx.save_for_backward(weight, *join(ends), *grid)
        return output.view(weight.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        weight, maximum, minimum, scale, zero_point = ctx.saved_tensors
        groups, upstream = weight.reshape(ctx.shape), upstream.reshape(ctx.shape)
        gradient, work = torch.empty_like(groups), Workspace()
        for rows in row_chunks(groups):
            block = work.upcast("block", groups[rows])
            ends = Ends(maximum[rows], minimum[rows])
            grid = Grid(scale[rows], None if zero_point is None else zero_point[rows])
            above = work.upcast("upstream", upstream[rows])
            inner, shares = ctx.number_format.backward(block, ends, grid, above, ctx.scale_grad, work)
            if shares is not None:
                _add_to_ends(inner, block, ends, shares, work)
            gradient[rows] = inner
        return gradient.view(weight.shape), None, None, None, None


def _add_to_ends(gradient: Tensor, block: Tensor, ends: Ends, shares: Ends, work: Workspace) -> None:
    """Add each end's share to the weights that equal it, split evenly among ties as autograd of amax does."""
    tied = work.take("tied", block)
    for end, share in zip(ends, shares, strict=True):
        torch.eq(block, end, out=tied)
        gradient.addcmul_(tied, share / tied.sum(dim=-1, keepdim=True))
