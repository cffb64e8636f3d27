"""The scales and zero points of a student that was trained with them (`train_scales`, docs/method.md 4)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.formats import NumberFormat, trained_grid
from bitdistiller.layers import GRID_STEM, GRID_TENSORS, TensorFiles


class StudentGrid:
    """`<layer>.scale` and `<layer>.zero_point`, float32 (out, groups), from `scales.safetensors` of a `student/`."""

    def __init__(self, directory: Path, number_format: NumberFormat, layers: dict[str, tuple[int, int]]) -> None:
        """`layers`: the quantised layers. Raises InputError when the file, or a layer in it, is missing."""
        self._grid = trained_grid(number_format)
        self._files = TensorFiles(directory, GRID_STEM)
        wanted = {f"{layer}.{kind}" for layer in layers for kind in GRID_TENSORS}
        difference = sorted(wanted ^ set(self._files.names))
        if difference:
            problem = "is missing from" if difference[0] in wanted else "belongs to no quantised layer in"
            raise InputError(f"{directory / GRID_STEM}.safetensors: {difference[0]} {problem} it; train again")

    def quantize(self, layer: str, weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, scales and zero points of a layer with this master weight (out, in)."""
        return self._grid.quantize(weight, *self._tensors(layer), group_size, name=layer)

    @torch.no_grad()
    def fake_quantize(self, layer: str, weight: Tensor, group_size: int, dtype: torch.dtype) -> Tensor:
        """What the layer multiplies with, (out, in), rounded once to `dtype`."""
        return self._grid.fake_quantize(weight, *self._tensors(layer), group_size, name=layer, dtype=dtype)

    def _tensors(self, layer: str) -> tuple[Tensor, Tensor]:
        scale, zero_point = (self._files.read(f"{layer}.{kind}").float() for kind in GRID_TENSORS)
        return scale, zero_point
