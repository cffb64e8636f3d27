"""Integer formats with scales and zero points trained beside the weights (after EfficientQAT, arXiv 2407.11062)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.formats.base import NumberFormat
from bitdistiller.formats.grid import Grid, group_ends, require_finite
from bitdistiller.formats.grouping import join_groups, split_groups
from bitdistiller.formats.integer import MINIMUM_RANGE, IntegerFormat
from bitdistiller.kernels import on_grid


@dataclass(frozen=True)
class TrainedGrid:
    """`w_hat = (q - z) s` with `q = clamp(round(w / s) + z, 0, L)`, where `s` and `z` are given for every group.

    The scale is kept at or above `1e-5 / L` and rounded once to `scale_dtype`; the zero point is rounded to an integer
    within 0..L. Both roundings are straight through. With `inside` where `0 <= round(w/s) + z <= L`, an upstream
    gradient `up` gives `up * inside` to a weight, `sum(up ((q - z) - inside w/s))` to the scale and
    `-s sum(up (1 - inside))` to the zero point; neither of these is pushed further beyond its own limits.
    """

    number_format: IntegerFormat

    @torch.no_grad()
    def start(self, weight: Tensor, group_size: int | None, name: str = "weight") -> tuple[Tensor, Tensor]:
        """Scale and zero point, both float32 (out, groups), of the weight's own grid: same codes, same values."""
        _, scale, zero_point = self.number_format.quantize(weight, group_size, name)
        return scale.float(), zero_point.float()

    def fake_quantize(
        self,
        weight: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        group_size: int | None,
        name: str = "weight",
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Quantised values (out, in), rounded once to `dtype` (default: the weight's own); differentiable in all three.

        scale and zero_point: (out, groups). Raises InputError, naming the layer `name`, for infinite or NaN numbers,
        for bad group sizes and for grids of another shape.
        """
        groups = split_groups(weight, group_size, name, self.number_format.pad)
        self._check(groups, scale, zero_point, name)
        values = OnGrid.apply(groups, scale, zero_point, self, name, dtype or weight.dtype)
        return join_groups(values, weight.shape[1])

    @torch.no_grad()
    def quantize(
        self, weight: Tensor, scale: Tensor, zero_point: Tensor, group_size: int | None, name: str = "weight"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (out, in) uint8, scale (out, groups) exact in `scale_dtype`, zero point (out, groups) int32."""
        groups = split_groups(weight, group_size, name, self.number_format.pad)
        self._check(groups, scale, zero_point, name)
        grid = self.settle(scale.unsqueeze(-1), zero_point.unsqueeze(-1))
        codes = self.number_format.encode(groups, grid).to(torch.uint8)
        integers = grid.zero_point.squeeze(-1).to(torch.int32)
        return join_groups(codes, weight.shape[1]).contiguous(), grid.scale.squeeze(-1), integers

    def settle(self, scale: Tensor, zero_point: Tensor) -> Grid:
        """The grid that trained scales and zero points stand for."""
        rounded = self.number_format.round_scale(scale.clamp(min=self._least))
        return Grid(rounded, torch.round(zero_point).clamp(0, self.number_format.levels))

    def forward_formula(self, groups: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        """See `kernels.on_grid.GridFormula`."""
        ends = group_ends(groups)
        return self.number_format.values(groups, self.settle(scale, zero_point)), ends.maximum - ends.minimum

    def backward_formula(
        self, groups: Tensor, scale: Tensor, zero_point: Tensor, upstream: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `kernels.on_grid.GridFormula`."""
        grid, levels = self.settle(scale, zero_point), self.number_format.levels
        ratio = groups / grid.scale
        unclamped = torch.round(ratio) + grid.zero_point
        codes = unclamped.clamp(0, levels)
        inside = (unclamped == codes).to(groups.dtype)
        weight = upstream * inside
        error = upstream * (codes - grid.zero_point) - weight * ratio
        to_scale = error.sum(dim=-1, keepdim=True)
        to_zero_point = (weight - upstream).sum(dim=-1, keepdim=True) * grid.scale
        to_scale = to_scale * ~((scale < self._least) & (to_scale > 0))
        below, above = (zero_point < 0) & (to_zero_point > 0), (zero_point > levels) & (to_zero_point < 0)
        return weight, to_scale, to_zero_point * ~(below | above)

    @property
    def _least(self) -> float:
        return MINIMUM_RANGE / self.number_format.levels

    def _check(self, groups: Tensor, scale: Tensor, zero_point: Tensor, name: str) -> None:
        for kind, grid in (("scale", scale), ("zero_point", zero_point)):
            if grid.shape != groups.shape[:2]:
                raise InputError(f"{name}.{kind}: shape {tuple(grid.shape)}; accepted: {tuple(groups.shape[:2])}")
            require_finite(grid, name, f"{kind.replace('_', ' ')}s")


class OnGrid(torch.autograd.Function):
    """Values of groups (out, groups, group_size) on a given grid; keeps the weight and the grid, nothing else."""

    @staticmethod
    def forward(
        ctx: Any, groups: Tensor, scale: Tensor, zero_point: Tensor, formula: TrainedGrid, name: str, dtype: torch.dtype
    ) -> Tensor:
        flat = groups.flatten(0, 1), scale.reshape(-1, 1), zero_point.reshape(-1, 1)
        values, check = on_grid.forward(formula, *flat, dtype)
        require_finite(check.view(len(groups), -1), name)
        ctx.formula = formula
        ctx.save_for_backward(groups, scale, zero_point)
        return values.view(groups.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        groups, scale, zero_point = saved = ctx.saved_tensors  # once: recomputed blocks give them only once
        flat = groups.flatten(0, 1), scale.reshape(-1, 1), zero_point.reshape(-1, 1)
        found = on_grid.backward(ctx.formula, *flat, upstream.contiguous().flatten(0, 1))
        shaped = (part.view(tensor.shape) for part, tensor in zip(found, saved, strict=True))
        return *shaped, None, None, None


def trained_grid(number_format: NumberFormat) -> TrainedGrid:
    """The trainable grid of an integer format; InputError for formats without one."""
    if not isinstance(number_format, IntegerFormat):
        raise InputError(
            f"train_scales: {number_format.name} has no scales and zero points to train; accepted: int2, int3, int4"
        )
    return TrainedGrid(number_format)
