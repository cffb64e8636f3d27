"""Packed checkpoints read by this package alone, whichever compressed-tensors is installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitdistiller.config import ExportRecipe, Quantization
from bitdistiller.errors import InputError
from bitdistiller.export.compressed_tensors import PackQuantized
from bitdistiller.export.directory import parse_quantization, quant_method, read_config
from bitdistiller.export.layout import Grid, Layout
from bitdistiller.export.lookup import Lookup
from bitdistiller.export.ungrouped import ungrouped
from bitdistiller.layers import TensorFiles


@dataclass
class PackedParts:
    """A packed checkpoint of either layout, read tensor by tensor; others: names of what is not quantised."""

    layout: Layout
    files: TensorFiles
    layers: list[str]
    others: list[str]

    def grid(self, layer: str) -> Grid:
        """Codes, scales and zero points of a quantised layer."""
        return self.layout.decode(self._tensors(layer))

    def values(self, layer: str) -> Tensor:
        """The weight (out, in) of a quantised layer in float32."""
        return self.layout.dequantize(self._tensors(layer))

    def other(self, name: str, dtype: torch.dtype) -> Tensor:
        """A tensor that is not quantised; floating-point ones in `dtype`."""
        tensor = self.files.read(name)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def _tensors(self, layer: str) -> dict[str, Tensor]:
        return {suffix: self.files.read(f"{layer}.{suffix}") for suffix in self.layout.suffixes}


def packed_parts(path: Path) -> PackedParts:
    """The parts of a packed checkpoint; InputError for a directory that is none."""
    config = read_config(path)
    if quant_method(config) is None:
        raise InputError(f"{path}: its weights are not packed; accepted: the checkpoint/ of the stage export")
    layout = packed_layout(path, config)
    files, first = TensorFiles(path, layout.stem), f".{layout.suffixes[0]}"
    layers = [name.removesuffix(first) for name in files.names if name.endswith(first)]
    others = [name for name in files.names if name.rpartition(".")[2] not in layout.suffixes]
    return PackedParts(layout, files, layers, others)


def packed_state(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of a packed checkpoint, quantised weights computed in float32 and rounded once to `dtype`."""
    parts = packed_parts(path)
    state = {name: parts.other(name, dtype) for name in parts.others}
    return state | {f"{layer}.weight": parts.values(layer).to(dtype) for layer in parts.layers}


def packed_layout(path: Path, config: dict[str, Any]) -> Layout:
    """The layout of a packed checkpoint; InputError for one that this project does not write."""
    method, content = quant_method(config), config["quantization_config"]
    if method == Lookup.quant_method:
        recipe = ExportRecipe(quantization=parse_quantization(path / "config.json", content))
        own = ungrouped(recipe.quantization)
        return Lookup(recipe) if own is None else own.layout(recipe)
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
