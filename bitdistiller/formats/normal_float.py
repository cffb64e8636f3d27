"""Asymmetric normal-float formats nf2, nf3 and nf4: normal quantiles, scaled separately on each side of zero."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import NormalDist
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.grid import Ends, Grid
from bitdistiller.formats.grouping import Workspace


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


@cache
def sides(bits: int) -> tuple[Side, Side]:
    """The negative and the positive side of a width."""
    return (NF3_NEGATIVE, NF3_POSITIVE) if bits == 3 else (side_of(bits, -1), side_of(bits, 1))


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

    def grid(self, ends: Ends) -> Grid:
        return Grid(self.round_scale(torch.cat([ends.minimum, ends.maximum], dim=-1).abs()), None)

    def values(self, block: Tensor, grid: Grid, work: Workspace) -> Tensor:
        negative, positive = (self._snap(block, grid, side, work).mul_(_scale(grid, side)) for side in (0, 1))
        return negative.add_(positive)

    def encode(self, block: Tensor, grid: Grid, work: Workspace) -> Tensor:
        negative, positive = sides(self.bits)
        codes = torch.zeros_like(block)
        below, above = (_ratio(block, grid, side, work) for side in (0, 1))
        for boundary in negative.boundaries:
            codes += below >= boundary
        for boundary in positive.boundaries:
            codes += above >= boundary
        return codes

    def decode(self, codes: Tensor, grid: Grid) -> Tensor:
        negative, positive = sides(self.bits)
        levels = torch.tensor([*reversed(negative.levels), 0.0, *positive.levels], dtype=codes.dtype)
        chosen = levels.to(codes.device)[codes.long()]
        return torch.where(chosen < 0, _scale(grid, 0), _scale(grid, 1)) * chosen

    def backward(
        self, block: Tensor, ends: Ends, grid: Grid, upstream: Tensor, scale_grad: bool, work: Workspace
    ) -> tuple[Tensor, Ends | None]:
        gradient = work.take("gradient", block).copy_(upstream)
        if not scale_grad:
            return gradient, None
        slopes = []
        for side in (0, 1):
            error = self._snap(block, grid, side, work).sub_(_ratio(block, grid, side, work))
            slopes.append(error.mul_(upstream).sum(dim=-1, keepdim=True))
        return gradient, Ends(ends.maximum.sign() * slopes[1], ends.minimum.sign() * slopes[0])

    def _snap(self, block: Tensor, grid: Grid, side: int, work: Workspace) -> Tensor:
        """The level of each weight on one side of zero, and 0 for weights of the other side, in scratch memory.

        Levels grow outwards, so the outermost of those reached is their extreme: no table is gathered from, and
        zeros of the other side make the sum over both sides exact.
        """
        levels, boundaries = sides(self.bits)[side]
        reached, furthest = (torch.ge, torch.maximum) if side else (torch.lt, torch.minimum)
        ratio, candidate = _ratio(block, grid, side, work), work.take("candidate", block)
        snapped = work.take(f"snapped{side}", block).zero_()
        for level, boundary in zip(levels, boundaries, strict=True):
            reached(ratio, boundary, out=candidate)
            furthest(snapped, candidate.mul_(level), out=snapped)
        return snapped


def _scale(grid: Grid, side: int) -> Tensor:
    return grid.scale[..., side : side + 1]


def _ratio(block: Tensor, grid: Grid, side: int, work: Workspace) -> Tensor:
    """Weights of one side over its scale, 0 for those of the other; 0 where the scale is 0."""
    ratio, scale = work.take(f"ratio{side}", block), _scale(grid, side)
    torch.clamp(block, min=0, out=ratio) if side else torch.clamp(block, max=0, out=ratio)
    return ratio.div_(torch.where(scale == 0, 1, scale))
