"""What every number format offers to the rooms below; the formulas themselves are its subclasses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.formats.grid import Ends, Grid, group_ends, require_finite
from bitdistiller.formats.grouping import join_groups, split_groups
from bitdistiller.formats.straight_through import StraightThrough
from bitdistiller.kernels import TritonKernels
from bitdistiller.kernels.eager import arithmetic_dtype, chunk_elements

SCALE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class NumberFormat(ABC):
    """A rule that gives each group of weights `bits`-bit codes and its own scales.

    Arithmetic is float32, or float64 for float64 input. Scales are rounded once to `scale_dtype` and everything after
    uses the rounded scale, so fake-quantised and packed values are equal bit for bit. With `pad`, a last group that
    the input features do not fill is filled up with zeros, which are dropped again from values and codes.

    A subclass is a few pure functions of groups (..., group_size) in arithmetic dtype; `bitdistiller.kernels` runs
    them eagerly, compiled, or as the Triton kernels it names.
    """

    bits: int
    scale_dtype: str = "float32"
    pad: bool = False

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
        self,
        weight: Tensor,
        group_size: int | None,
        scale_grad: bool = True,
        name: str = "weight",
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Quantised values (out, in) of `weight`, rounded once to `dtype` (default: the weight's own).

        Differentiable by the straight-through rule; `scale_grad` lets the gradient also flow through the scales into
        each group's largest and smallest weight.
        Raises InputError, naming the layer `name`, for infinite or NaN weights and for bad group sizes.
        """
        groups = split_groups(weight, group_size, name, self.pad)
        values = StraightThrough.apply(groups, self, scale_grad, name, dtype or weight.dtype)
        return join_groups(values, weight.shape[1])

    @torch.no_grad()
    def quantize(
        self, weight: Tensor, group_size: int | None, name: str = "weight"
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes (out, in) uint8, scale (out, groups) or (out, groups, 2), zero point (out, groups) int32 or None.

        Scales come in the arithmetic dtype and are exact in `scale_dtype`. Errors as in `fake_quantize`.
        """
        groups = split_groups(weight, group_size, name, self.pad)
        codes = torch.empty(groups.shape, dtype=torch.uint8, device=weight.device)
        grids = []
        step = max(1, chunk_elements(groups) // groups[0].numel())
        for start in range(0, len(groups), step):
            block = groups[start : start + step].to(arithmetic_dtype(weight.dtype))
            grids.append(self.grid(group_ends(block)))
            codes[start : start + step] = self.encode(block, grids[-1])
        scale = torch.cat([grid.scale for grid in grids])
        require_finite(scale, name)
        zero_point = None
        if self.has_zero_point:
            zero_point = torch.cat([grid.zero_point for grid in grids]).squeeze(-1).to(torch.int32)
        scale = scale.squeeze(-1) if self.scales_per_group == 1 else scale
        return join_groups(codes, weight.shape[1]).contiguous(), scale, zero_point

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
        groups = split_groups(codes.to(working), group_size, "codes", self.pad)
        scale = scale.to(working).view(*groups.shape[:2], self.scales_per_group)
        if zero_point is not None:
            zero_point = zero_point.to(working).unsqueeze(-1)
        values = self.decode(groups, Grid(scale, zero_point))
        return join_groups(values, codes.shape[1]).to(dtype or working).contiguous()

    def level_table(self) -> list[float] | None:
        """The values that codes point into at scale 1, for formats that look them up; None for the others."""
        return None

    def round_scale(self, scale: Tensor) -> Tensor:
        """Round scales once to `scale_dtype`; they keep their dtype."""
        return scale if self.scale_dtype == "float32" else scale.to(SCALE_DTYPES[self.scale_dtype]).to(scale.dtype)

    def forward_formula(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """See `kernels.Formula`."""
        grid = self.grid(group_ends(groups))
        return self.values(groups, grid), grid.scale

    def backward_formula(self, groups: Tensor, upstream: Tensor, scale_grad: bool) -> Tensor:
        """See `kernels.Formula`."""
        ends = group_ends(groups)
        return self.gradient(groups, ends, self.grid(ends), upstream, scale_grad)

    @abstractmethod
    def triton_kernels(self) -> TritonKernels | None:
        """See `kernels.Formula`."""

    @abstractmethod
    def grid(self, ends: Ends) -> Grid:
        """The scales and zero points of groups with the given ends."""

    @abstractmethod
    def values(self, groups: Tensor, grid: Grid) -> Tensor:
        """Quantised values of groups."""

    @abstractmethod
    def encode(self, groups: Tensor, grid: Grid) -> Tensor:
        """Codes 0 .. 2**bits - 1 of groups as floating-point numbers, increasing with the weight."""

    @abstractmethod
    def decode(self, codes: Tensor, grid: Grid) -> Tensor:
        """Values of codes given as floating-point numbers (..., group_size)."""

    @abstractmethod
    def gradient(self, groups: Tensor, ends: Ends, grid: Grid, upstream: Tensor, scale_grad: bool) -> Tensor:
        """Gradient of each weight; with `scale_grad` the ends also receive what flows through the scales."""
