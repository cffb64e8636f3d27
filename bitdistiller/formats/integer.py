"""Asymmetric integer formats int2, int3 and int4: uniform steps between a group's smallest and largest weight."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.grid import Ends, Grid, add_to_ends
from bitdistiller.kernels import TritonKernels

MINIMUM_RANGE = 1e-5


@dataclass(frozen=True)
class IntegerFormat(NumberFormat):
    """`L = 2^b - 1`, `s = max(M - m, 1e-5) / L`, `z = clamp(-round(m / s), 0, L)`, `w_hat = (q - z) s`.

    `q = clamp(round(w / s) + z, 0, L)`; ties round to even. The range is extended to contain zero (`M >= 0 >= m`), so
    that groups of one sign decode correctly; `reference_range` leaves it as the released code of BitDistiller
    (arXiv 2402.10631) does, for comparison. The two are equal for every group that straddles zero.
    """

    reference_range: bool = False

    kind: ClassVar[str] = "int"
    packable: ClassVar[bool] = True
    scales_per_group: ClassVar[int] = 1
    has_zero_point: ClassVar[bool] = True

    @property
    def levels(self) -> int:
        """The largest code, `L`."""
        return 2**self.bits - 1

    def triton_kernels(self) -> TritonKernels:
        from bitdistiller.kernels.triton.integer import backward_kernel, forward_kernel

        constants = {
            "LEVELS": self.levels,
            "MINIMUM_RANGE": MINIMUM_RANGE,
            "EXTEND": not self.reference_range,
            "ROUND_SCALE": self.scale_dtype == "bfloat16",
        }
        return TritonKernels(forward_kernel, backward_kernel, constants, self.scales_per_group)

    def grid(self, ends: Ends) -> Grid:
        maximum, minimum = self._range(ends)
        scale = self.round_scale((maximum - minimum).clamp(min=MINIMUM_RANGE) / self.levels)
        return Grid(scale, (-torch.round(minimum / scale)).clamp(0, self.levels))

    def values(self, groups: Tensor, grid: Grid) -> Tensor:
        return self.encode(groups, grid).sub_(grid.zero_point).mul_(grid.scale)

    def encode(self, groups: Tensor, grid: Grid) -> Tensor:
        return (groups / grid.scale).round_().add_(grid.zero_point).clamp_(0, self.levels)

    def decode(self, codes: Tensor, grid: Grid) -> Tensor:
        return (codes - grid.zero_point) * grid.scale

    def gradient(self, groups: Tensor, ends: Ends, grid: Grid, upstream: Tensor, scale_grad: bool) -> Tensor:
        ratio = groups / grid.scale
        unclamped = torch.round(ratio).add_(grid.zero_point)
        codes = unclamped.clamp(0, self.levels)
        inside = (unclamped == codes).to(groups.dtype)
        gradient = upstream * inside
        if not scale_grad:
            return gradient
        error = codes.sub_(grid.zero_point).sub_(ratio.mul_(inside)).mul_(upstream)
        slope = error.sum(dim=-1, keepdim=True) / self.levels
        return add_to_ends(gradient, groups, ends, self._end_gradients(ends, slope))

    def _range(self, ends: Ends) -> Ends:
        return ends if self.reference_range else Ends(ends.maximum.clamp(min=0), ends.minimum.clamp(max=0))

    def _end_gradients(self, ends: Ends, slope: Tensor) -> Ends:
        """`+-` the gradient of the range; none below the minimum range or through an end that was extended."""
        extended = self._range(ends)
        slope = slope * (extended.maximum - extended.minimum >= MINIMUM_RANGE)
        return Ends(slope * (extended.maximum == ends.maximum), -slope * (extended.minimum == ends.minimum))
