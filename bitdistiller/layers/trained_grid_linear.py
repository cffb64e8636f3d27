"""A fake-quantised linear layer whose scales and zero points are parameters beside its weight."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from bitdistiller.formats import NumberFormat, TrainedGrid, trained_grid
from bitdistiller.formats.grouping import group_count
from bitdistiller.layers.quantized_linear import FakeQuantizedLinear

GRID_TENSORS = ("scale", "zero_point")
"""What the state dict of such a layer has beside weight and bias."""
GRID_STEM = "scales"
"""Name, without `.safetensors`, of the file beside a student's master weights that holds these tensors."""


class TrainedGridLinear(FakeQuantizedLinear):
    """As FakeQuantizedLinear, on a trained grid (`formats.TrainedGrid`): parameters `scale` and `zero_point`.

    Both are float32 (out, groups). They start as the grid of the layer's weight, so that the first forward equals
    that of a FakeQuantizedLinear bit for bit.
    """

    grid: TrainedGrid
    scale: nn.Parameter
    zero_point: nn.Parameter

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        number_format: NumberFormat,
        group_size: int | None,
        scale_grad: bool = True,
        name: str = "weight",
    ) -> Self:
        """As FakeQuantizedLinear.from_linear; `scale_grad` has no meaning where scales are parameters themselves.

        Raises InputError for a format without such a grid, and when `group_size` does not divide.
        """
        grid = trained_grid(number_format)
        layer = super().from_linear(linear, number_format, group_size, scale_grad, name)
        layer.grid = grid
        if linear.weight.is_meta:
            shape = linear.out_features, group_count(linear.in_features, layer.group_size)
            start = torch.empty(shape, device="meta"), torch.empty(shape, device="meta")
        else:
            start = grid.start(linear.weight, layer.group_size, name)
        layer.scale, layer.zero_point = map(nn.Parameter, start)
        return layer

    def _quantize(self, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
        return self.grid.fake_quantize(weight, self.scale, self.zero_point, self.group_size, self.name, dtype)
