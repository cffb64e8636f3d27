"""What every number format offers to the rooms below, and the walk over a weight that all of them share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.formats.grid import Ends, Grid, group_ends, join, require_finite
from bitdistiller.formats.grouping import Workspace, arithmetic_dtype, row_chunks, split_groups
from bitdistiller.formats.straight_through import StraightThrough

SCALE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class NumberFormat(ABC):
    """A rule that gives each group of weights `bits`-bit codes and its own scales.

    Arithmetic is float32, or float64 for float64 input. Scales are rounded once to `scale_dtype` and everything after
    uses the rounded scale, so fake-quantised and packed values are equal bit for bit.

    A subclass supplies functions of blocks (rows, groups, group_size); dtypes, chunks and autograd live here.
    """

    bits: int
    scale_dtype: str = "float32"

    kind: ClassVar[str]
    packable: ClassVar[bool]
    scales_per_group: ClassVar[int]
    has_zero_point: ClassVar[bool]

    def __post_init__(self) -> None:
        if self.scale_dtype not in SCALE_DTYPES:
            raise InputError(f"scale_dtype: {self.scale_dtype!r}; accepted: {', '.join(SCALE_DTYPES)}")

    @property
    def name(self) -> str:
        """The name `get_format` knows it by, for example int2."""
        return f"{self.kind}{self.bits}"

    def bits_per_weight(self, group_size: int) -> float:
        """Stored bits for one weight when `group_size` weights share their scales and zero point."""
        scale_bits = 8 * SCALE_DTYPES[self.scale_dtype].itemsize
        zero_point_bits = self.bits if self.has_zero_point else 0
        return self.bits + (self.scales_per_group * scale_bits + zero_point_bits) / group_size

    def fake_quantize(
        self, weight: Tensor, group_size: int | None, scale_grad: bool = True, name: str = "weight"
    ) -> Tensor:
        """Quantised values of `weight` (out, in) in its own dtype, differentiable by the straight-through rule.

        `scale_grad` lets the gradient also flow through the scales into each group's largest and smallest weight.
        Raises InputError, naming the layer `name`, for infinite or NaN weights and for bad group sizes.
        """
        return StraightThrough.apply(weight, self, group_size, scale_grad, name)

    @torch.no_grad()
    def quantize(
        self, weight: Tensor, group_size: int | None, name: str = "weight"
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes (out, in) uint8, scale (out, groups) or (out, groups, 2), zero point (out, groups) int32 or None.

        Scales come in the arithmetic dtype and are exact in `scale_dtype`. Errors as in `fake_quantize`.
        """
        groups, work = split_groups(weight, group_size, name), Workspace()
        codes = torch.empty(groups.shape, dtype=torch.uint8, device=weight.device)
        grids = []
        for rows in row_chunks(groups):
            block = work.upcast("block", groups[rows])
            grids.append(self.grid(group_ends(block)))
            codes[rows] = self.encode(block, grids[-1], work)
        scale, zero_point = join(grids)
        require_finite(scale, name)
        if zero_point is not None:
            zero_point = zero_point.squeeze(-1).to(torch.int32)
        return codes.view(weight.shape), scale.squeeze(-1) if self.scales_per_group == 1 else scale, zero_point

    @torch.no_grad()
    def dequantize(
        self,
        codes: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        group_size: int | None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Values (out, in) of what `quantize` returned, in `dtype` (default: float32, or float64 for such scales)."""
        working = arithmetic_dtype(scale.dtype)
        groups = split_groups(codes.to(working), group_size, "codes")
        scale = scale.to(working).view(*groups.shape[:2], self.scales_per_group)
        if zero_point is not None:
            zero_point = zero_point.to(working).unsqueeze(-1)
        return self.decode(groups, Grid(scale, zero_point)).view(codes.shape).to(dtype or working)

    def round_scale(self, scale: Tensor) -> Tensor:
        """Round scales once to `scale_dtype`; they keep their dtype."""
        return scale if self.scale_dtype == "float32" else scale.to(SCALE_DTYPES[self.scale_dtype]).to(scale.dtype)

    @abstractmethod
    def grid(self, ends: Ends) -> Grid:
        """The scales and zero points of groups with the given ends."""

    @abstractmethod
    def values(self, block: Tensor, grid: Grid, work: Workspace) -> Tensor:
        """Quantised values of a block, in scratch memory of `work`."""

    @abstractmethod
    def encode(self, block: Tensor, grid: Grid, work: Workspace) -> Tensor:
        """Codes 0 .. 2**bits - 1 of a block as floating-point numbers, increasing with the weight."""

    @abstractmethod
    def decode(self, codes: Tensor, grid: Grid) -> Tensor:
        """Values of codes given as floating-point numbers (rows, groups, group_size)."""

    @abstractmethod
    def backward(
        self, block: Tensor, ends: Ends, grid: Grid, upstream: Tensor, scale_grad: bool, work: Workspace
    ) -> tuple[Tensor, Ends | None]:
        """Gradient of each weight, in scratch memory, and what the ends receive besides (None without scale_grad)."""
