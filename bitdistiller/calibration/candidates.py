"""The error of one pair of clip ends for every group of a block, in as few passes over memory as the machine allows."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from bitdistiller.formats import NumberFormat
from bitdistiller.formats.grid import Ends, group_ends
from bitdistiller.kernels import worth_compiling
from bitdistiller.kernels.compiled import call, compile_function
from bitdistiller.kernels.eager import keep_freed_memory

WORTH_COMPILING = 1 << 18
"""Weights from which a block is searched by compiled kernels; a hundred candidates soon earn the compilation back."""


class Candidates:
    """A block of weights (groups, rows, g) with the roots (groups, g, g) of its Gram matrices."""

    def __init__(self, block: Tensor, root: Tensor, number_format: NumberFormat) -> None:
        self.block, self.root, self.format = block, root, number_format
        self.ends = group_ends(block)
        self._compiled = worth_compiling(block, WORTH_COMPILING)
        keep_freed_memory()
        self._flat = block.flatten(0, 1), *(end.flatten(0, 1) for end in self.ends)

    def clip(self, upper: Tensor, lower: Tensor) -> Ends:
        """The ends that keep the given shares, (groups, rows, 1) each."""
        return Ends(self.ends.maximum * upper, self.ends.minimum * lower)

    def error(self, upper: Tensor, lower: Tensor) -> Tensor:
        """`d^T G d = |d R|^2` of every group, (groups, rows, 1), when its ends keep the given shares."""
        clip = (end.flatten(0, 1) for end in self.clip(upper, lower))
        change = self._run(_change_formula, *self._flat, *clip)
        response = torch.bmm(change.view_as(self.block), self.root)
        return self._run(_square_formula, response.flatten(0, 1)).view_as(upper)

    def _run(self, make: Callable[[NumberFormat], Callable[..., Tensor]], *tensors: Tensor) -> Tensor:
        return call(_compiled(make, self.format), *tensors) if self._compiled else make(self.format)(*tensors)


def _change_formula(number_format: NumberFormat) -> Callable[..., Tensor]:
    """What clamping and quantising changes: groups (n, g), their ends and the clip ends (n, 1) -> (n, g)."""

    def change(groups: Tensor, maximum: Tensor, minimum: Tensor, high: Tensor, low: Tensor) -> Tensor:
        clamped = _clamp(groups, high, low)
        grid = number_format.grid(Ends(_clamp(maximum, high, low), _clamp(minimum, high, low)))
        return number_format.values(clamped, grid).sub_(groups)

    return change


def _square_formula(_: NumberFormat) -> Callable[[Tensor], Tensor]:
    return lambda response: response.square().sum(dim=-1, keepdim=True)


@cache
def _compiled(make: Callable[[NumberFormat], Callable[..., Tensor]], number_format: NumberFormat) -> Callable:
    return compile_function(make(number_format))


def _clamp(x: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """`torch.clamp` between tensors (the maximum wins where the ends have crossed), faster when they broadcast."""
    return torch.minimum(torch.maximum(x, low), high)
