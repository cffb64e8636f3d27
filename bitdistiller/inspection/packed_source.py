"""A packed checkpoint of this project: its codes, its values, its size on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bitdistiller.config import ExportRecipe, Quantization
from bitdistiller.errors import InputError
from bitdistiller.export.compressed_tensors import PackQuantized
from bitdistiller.export.directory import parse_quantization, quant_method, read_config
from bitdistiller.export.layout import Layout
from bitdistiller.export.lookup import Lookup
from bitdistiller.export.masters import linear_layers
from bitdistiller.inspection import statistics
from bitdistiller.inspection.rows import LayerRow, code_columns, relative, weight_columns
from bitdistiller.inspection.sources import Options, Reference, Source
from bitdistiller.layers import TensorFiles


class PackedSource(Source):
    """Statistics are of the values the checkpoint stands for; errors need the model it was made of."""

    def __init__(self, path: Path, options: Options) -> None:
        options.refuse(("clip",), f"{path} is packed, so its weights were clipped before")
        config = read_config(path)
        self.layout = packed_layout(path, config)
        self.quantization = options.resolve(path, self.layout.recipe.quantization)
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


def packed_layout(path: Path, config: dict[str, Any]) -> Layout:
    """The layout of a packed checkpoint; InputError for one that this project does not write."""
    method, content = quant_method(config), config["quantization_config"]
    if method == Lookup.quant_method:
        return Lookup(ExportRecipe(quantization=parse_quantization(path / "config.json", content)))
    if method == PackQuantized.quant_method and content.get("format") == "pack-quantized":
        return PackQuantized(ExportRecipe(quantization=_integer_quantization(path, content)))
    raise InputError(
        f"{path}: its weights are stored as {method} {content.get('format') or ''}".rstrip()
        + f"; accepted: {PackQuantized.quant_method} pack-quantized and {Lookup.quant_method}"
    )


def _integer_quantization(path: Path, content: dict[str, Any]) -> Quantization:
    """The quantization of a `pack-quantized` checkpoint, its scales as precise as they are stored."""
    groups = list((content.get("config_groups") or {}).values())
    weights = (groups[0].get("weights") or {}) if len(groups) == 1 else {}
    if (weights.get("type"), weights.get("strategy"), weights.get("symmetric")) != ("int", "group", False):
        raise InputError(f"{path}: config.json: accepted: one config group of asymmetric integers in groups")
    recipe = {"format": f"int{weights.get('num_bits')}", "group_size": weights.get("group_size")}
    quantization = parse_quantization(path / "config.json", recipe)
    files = TensorFiles(path, PackQuantized.stem)
    scale = next((name for name in files.names if name.endswith(".weight_scale")), None)
    if scale is None:
        raise InputError(f"{path}: no tensor *.weight_scale in its files; this is not a whole packed checkpoint")
    narrow = files.read(scale).dtype == torch.bfloat16
    return quantization.model_copy(update={"scale_dtype": "bfloat16" if narrow else "float32"})
