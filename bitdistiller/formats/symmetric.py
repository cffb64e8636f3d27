"""Symmetric integer formats sym3, sym4 and sym8: uniform steps on both sides of zero, no zero point (LLM-QAT)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.grid import Ends, Grid
from bitdistiller.kernels import TritonKernels

EPSILON = 1e-6
GATE = 2.0


@dataclass(frozen=True)
class SymmetricFormat(NumberFormat):
    """`L = 2^(b-1) - 1`, `s = L / (max|w| + 1e-6)`, `w_hat = round(w s) / (s + 1e-6)` (LLM-QAT, arXiv 2305.17888).

    The scale is what weights are multiplied by, the reciprocal of a step; ties round to even, and `-2^(b-1)` is not
    used. Gradients pass where `-2 < w < 2` and none flows through the scale, with and without `scale_grad`. Rounding
    the scale to bfloat16 may carry a weight past the last level; it is then given that level.
    """

    kind: ClassVar[str] = "sym"
    packable: ClassVar[bool] = False
    scales_per_group: ClassVar[int] = 1
    has_zero_point: ClassVar[bool] = False

    @property
    def levels(self) -> int:
        """The largest level, `L`; codes count from `-L`."""
        return 2 ** (self.bits - 1) - 1

    def triton_kernels(self) -> TritonKernels:
        from bitdistiller.kernels.triton.symmetric import backward_kernel, forward_kernel

        constants = {
            "LEVELS": self.levels,
            "EPSILON": EPSILON,
            "GATE": GATE,
            "ROUND_SCALE": self.scale_dtype == "bfloat16",
        }
        return TritonKernels(forward_kernel, backward_kernel, constants, self.scales_per_group)

    def grid(self, ends: Ends) -> Grid:
        largest = ends.maximum.abs().maximum(ends.minimum.abs())
        scale = self.round_scale(torch.full_like(largest, self.levels) / (largest + EPSILON))
        return Grid(torch.where(largest == torch.inf, torch.nan, scale), None)

    def values(self, groups: Tensor, grid: Grid) -> Tensor:
        return self._steps(groups, grid).div_(grid.scale + EPSILON)

    def encode(self, groups: Tensor, grid: Grid) -> Tensor:
        return self._steps(groups, grid).add_(self.levels)

    def decode(self, codes: Tensor, grid: Grid) -> Tensor:
        return (codes - self.levels) / (grid.scale + EPSILON)

    def gradient(self, groups: Tensor, ends: Ends, grid: Grid, upstream: Tensor, scale_grad: bool) -> Tensor:
        return upstream * (groups.abs() < GATE)

    def _steps(self, groups: Tensor, grid: Grid) -> Tensor:
        return (groups * grid.scale).round_().clamp_(-self.levels, self.levels)
