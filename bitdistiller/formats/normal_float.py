"""Asymmetric normal-float formats nf2, nf3 and nf4: normal quantiles, scaled separately on each side of zero."""

from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.grid import Ends, Grid, add_to_ends
from bitdistiller.kernels import TritonKernels


class Side(NamedTuple):
    """One side of zero: levels from the innermost outwards, and the boundary each is entered at."""

    levels: tuple[float, ...]
    boundaries: tuple[float, ...]


# The released tables of BitDistiller (arXiv 2402.10631); the rule of `side_of` gives them to 1e-5.
NF3_NEGATIVE = Side(
    (-0.2469314038753510, -0.5350227355957031, -1.0),
    (-0.1234657019376755, -0.39097706973552704, -0.7675113677978516),
)
NF3_POSITIVE = Side(
    (0.1833375245332718, 0.3819939494132996, 0.6229856610298157, 1.0),
    (0.0916687622666359, 0.2826657369732857, 0.5024898052215576, 0.8114928305149078),
)


def side_of(bits: int, sign: int) -> Side:
    """One side of zero by the rule behind NF3: normal quantiles at equal steps of probability, largest level 1.

    The outermost probability is the mean of `1 - 1/(2 (2^b - 1))` and `1 - 1/(2 2^b)`; the positive side takes
    `2^(b-1)` steps from there towards 1/2, the negative one a step less. Boundaries are midpoints.
    """
    normal = NormalDist()
    outermost = ((1 - 1 / (2 * (2**bits - 1))) + (1 - 1 / (2 * 2**bits))) / 2
    count = 2 ** (bits - 1) - (sign < 0)
    probabilities = [outermost - (outermost - 0.5) * (count - step) / count for step in range(1, count + 1)]
    levels = [sign * normal.inv_cdf(probability) / normal.inv_cdf(outermost) for probability in probabilities]
    return Side(tuple(levels), tuple((inner + outer) / 2 for inner, outer in pairwise([0.0, *levels])))


SIDES = {bits: (side_of(bits, -1), side_of(bits, 1)) for bits in (2, 4)} | {3: (NF3_NEGATIVE, NF3_POSITIVE)}
"""The negative and the positive side of every width."""


@dataclass(frozen=True)
class NormalFloatFormat(NumberFormat):
    """`s- = |min(w)|`, `s+ = |max(w)|`; each weight is divided by the scale of its sign and given the nearest level.

    A quotient on a boundary goes up, that is outwards when positive and towards zero when negative. Codes count the
    levels from -1 upwards; scales are stored as (negative, positive).
    """

    kind: ClassVar[str] = "nf"
    packable: ClassVar[bool] = False
    scales_per_group: ClassVar[int] = 2
    has_zero_point: ClassVar[bool] = False

    def level_table(self) -> list[float]:
        negative, positive = SIDES[self.bits]
        return [*reversed(negative.levels), 0.0, *positive.levels]

    def triton_kernels(self) -> TritonKernels:
        from bitdistiller.kernels.triton.normal_float import backward_kernel, forward_kernel

        negative, positive = SIDES[self.bits]
        constants = {
            "NEGATIVE_LEVELS": negative.levels,
            "NEGATIVE_BOUNDARIES": negative.boundaries,
            "POSITIVE_LEVELS": positive.levels,
            "POSITIVE_BOUNDARIES": positive.boundaries,
            "ROUND_SCALE": self.scale_dtype == "bfloat16",
        }
        return TritonKernels(forward_kernel, backward_kernel, constants, self.scales_per_group)

    def grid(self, ends: Ends) -> Grid:
        return Grid(self.round_scale(torch.cat([ends.minimum, ends.maximum], dim=-1).abs()), None)

    def values(self, groups: Tensor, grid: Grid) -> Tensor:
        scale = _own_scale(groups, grid)
        return self._snap(_ratio(groups, scale)).mul_(scale)

    def encode(self, groups: Tensor, grid: Grid) -> Tensor:
        ratio, codes = _ratio(groups, _own_scale(groups, grid)), torch.zeros_like(groups)
        for side in SIDES[self.bits]:
            for boundary in side.boundaries:
                codes += ratio >= boundary
        return codes

    def decode(self, codes: Tensor, grid: Grid) -> Tensor:
        chosen = torch.tensor(self.level_table(), dtype=codes.dtype, device=codes.device)[codes.long()]
        return torch.where(chosen < 0, _scale(grid, 0), _scale(grid, 1)) * chosen

    def gradient(self, groups: Tensor, ends: Ends, grid: Grid, upstream: Tensor, scale_grad: bool) -> Tensor:
        if not scale_grad:
            return upstream
        ratio = _ratio(groups, _own_scale(groups, grid))
        error = self._snap(ratio).sub_(ratio).mul_(upstream)
        above = (error * (groups >= 0)).sum(dim=-1, keepdim=True)
        below = (error * (groups < 0)).sum(dim=-1, keepdim=True)
        return add_to_ends(upstream, groups, ends, Ends(ends.maximum.sign() * above, ends.minimum.sign() * below))

    def _snap(self, ratio: Tensor) -> Tensor:
        """The level of each weight over the scale of its side; levels grow outwards, so the last reached stays."""
        negative, positive = SIDES[self.bits]
        level = torch.zeros_like(ratio)
        for value, boundary in zip(*negative, strict=True):
            level = torch.where(ratio < boundary, value, level)
        for value, boundary in zip(*positive, strict=True):
            level = torch.where(ratio >= boundary, value, level)
        return level


def _scale(grid: Grid, side: int) -> Tensor:
    return grid.scale[..., side : side + 1]


def _own_scale(groups: Tensor, grid: Grid) -> Tensor:
    """The scale of each weight's own side."""
    return torch.where(groups < 0, _scale(grid, 0), _scale(grid, 1))


def _ratio(groups: Tensor, scale: Tensor) -> Tensor:
    """Weights over their scale; 0 where it is 0."""
    return groups / torch.where(scale == 0, 1, scale)
