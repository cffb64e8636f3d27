"""Asymmetric integer formats int2, int3 and int4: uniform steps between a group's smallest and largest weight."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.grid import Ends, Grid
from bitdistiller.formats.grouping import Workspace

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

    def grid(self, ends: Ends) -> Grid:
        maximum, minimum = self._range(ends)
        scale = self.round_scale((maximum - minimum).clamp(min=MINIMUM_RANGE) / self.levels)
        return Grid(scale, (-torch.round(minimum / scale)).clamp(0, self.levels))

    def values(self, block: Tensor, grid: Grid, work: Workspace) -> Tensor:
        return self.encode(block, grid, work).sub_(grid.zero_point).mul_(grid.scale)

    def encode(self, block: Tensor, grid: Grid, work: Workspace) -> Tensor:
        codes = torch.div(block, grid.scale, out=work.take("codes", block))
        return codes.round_().add_(grid.zero_point).clamp_(0, self.levels)

    def decode(self, codes: Tensor, grid: Grid) -> Tensor:
        return (codes - grid.zero_point) * grid.scale

    def backward(
        self, block: Tensor, ends: Ends, grid: Grid, upstream: Tensor, scale_grad: bool, work: Workspace
    ) -> tuple[Tensor, Ends | None]:
        ratio = torch.div(block, grid.scale, out=work.take("ratio", block))
        unclamped = torch.round(ratio, out=work.take("unclamped", block)).add_(grid.zero_point)
        codes = torch.clamp(unclamped, 0, self.levels, out=work.take("codes", block))
        inside = torch.eq(unclamped, codes, out=unclamped)
        gradient = torch.mul(upstream, inside, out=inside)
        if not scale_grad:
            return gradient, None
        error = codes.sub_(grid.zero_point).mul_(upstream).addcmul_(ratio, gradient, value=-1)
        return gradient, self._end_gradients(ends, error.sum(dim=-1, keepdim=True) / self.levels)

    def _range(self, ends: Ends) -> Ends:
        return ends if self.reference_range else Ends(ends.maximum.clamp(min=0), ends.minimum.clamp(max=0))

    def _end_gradients(self, ends: Ends, slope: Tensor) -> Ends:
        """`+-` the gradient of the range; none below the minimum range or through an end that was extended."""
        extended = self._range(ends)
        slope = slope * (extended.maximum - extended.minimum >= MINIMUM_RANGE)
        return Ends(slope * (extended.maximum == ends.maximum), -slope * (extended.minimum == ends.minimum))
