"""A packed checkpoint of this project: its codes, its values, its size on the disk."""

from __future__ import annotations

from pathlib import Path

import torch

from bitdistiller.export.directory import quant_method, read_config
from bitdistiller.export.masters import linear_layers
from bitdistiller.export.packed import packed_layout
from bitdistiller.inspection import statistics
from bitdistiller.inspection.rows import LayerRow, code_columns, relative, weight_columns
from bitdistiller.inspection.sources import Options, Reference, Source, require_groups
from bitdistiller.layers import TensorFiles


class PackedSource(Source):
    """Statistics are of the values the checkpoint stands for; errors need the model it was made of."""

    def __init__(self, path: Path, options: Options) -> None:
        options.refuse(("clip",), f"{path} is packed, so its weights were clipped before")
        config = read_config(path)
        self.layout = packed_layout(path, config)
        self.quantization = options.resolve(path, self.layout.recipe.quantization)
        require_groups(path, self.quantization)
        self.files = TensorFiles(path, self.layout.stem)
        self.shapes, _ = linear_layers(path)
        self.layers = list(self.shapes)
        self.reference = None if options.reference is None else Reference(options.reference)
        self.title = f"packed checkpoint ({quant_method(config)})"

    def row(self, layer: str) -> LayerRow:
        shape, suffixes = self.shapes[layer], self.layout.suffixes
        tensors = {suffix: self.files.read(f"{layer}.{suffix}") for suffix in suffixes}
        codes, *grid = self.layout.decode(tensors)
        values = self.layout.format.dequantize(codes, *grid, self.layout.group_size)
        stored = sum(self.files.nbytes(f"{layer}.{suffix}") for suffix in suffixes)
        return LayerRow(
            layer,
            *shape,
            codes.numel(),
            **weight_columns(values, self.layout.group_size),
            **code_columns(codes, self.layout.format.bits),
            **self._error_columns(layer, values),
            bits_per_weight=8 * stored / codes.numel(),
        )

    def _error_columns(self, layer: str, values: torch.Tensor) -> dict[str, float | None]:
        if self.reference is None:
            return {}
        error, energy = statistics.squared_error(values, self.reference.weight(layer, tuple(values.shape)))
        return {"error": relative(error, energy), "energy": energy}
