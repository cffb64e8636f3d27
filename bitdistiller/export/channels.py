"""LLM-QAT's packed layout: integers with one scale for each output channel; activations and cache by config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitdistiller.config import ExportRecipe, MixedBits, Quantization
from bitdistiller.config.mixed import OFF
from bitdistiller.errors import InputError
from bitdistiller.export.build import assembled
from bitdistiller.export.directory import student_quantization
from bitdistiller.export.layout import Grid, Layout
from bitdistiller.export.masters import Masters, linear_layers
from bitdistiller.formats import channel_codes, channel_values, pack_codes, unpack_codes
from bitdistiller.layers import MixedLinear, TensorFiles, is_cached

SCALE_BITS = 16
"""Of a scale in the least possible size."""


class Channels(Layout):
    """`weight_codes` (out, ceil(in bits / 8)) uint8, `weight_scale` (out,) float32, `weight_shape`."""

    stem = "channels"
    quant_method = "bitdistiller"

    def __init__(self, recipe: ExportRecipe) -> None:
        self.recipe = recipe
        self.bits = _bits(recipe.quantization)

    @property
    def suffixes(self) -> tuple[str, ...]:
        return ("weight_codes", "weight_scale", "weight_shape")

    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> dict[str, Tensor]:
        packed = pack_codes(codes, self.bits.weights)
        return {"weight_codes": packed, "weight_scale": scale, "weight_shape": torch.tensor(codes.shape)}

    def decode(self, tensors: dict[str, Tensor]) -> Grid:
        codes = unpack_codes(tensors["weight_codes"], self.bits.weights, int(tensors["weight_shape"][1]))
        return codes, tensors["weight_scale"], None

    def dequantize(self, tensors: dict[str, Tensor]) -> Tensor:
        codes, scale, _ = self.decode(tensors)
        return channel_values(codes, scale, self.bits.weights)

    def quantization_config(self, unquantised: list[str]) -> dict[str, Any]:
        bits = {f"{what}_bits": number for what, number in self.bits._asdict().items()}
        return {"quant_method": self.quant_method, **self.recipe.quantization.record, **bits, "ignore": unquantised}

    def minimum_bits(self, layers: dict[str, tuple[int, int]]) -> float:
        weights = sum(rows * columns for rows, columns in layers.values())
        return self.bits.weights + SCALE_BITS * sum(rows for rows, _ in layers.values()) / weights

    def build(self, parts: Any, path: Path, dtype: torch.dtype, packed: bool = False) -> PreTrainedModel:
        if packed:
            raise InputError(f"{path}: packed weights: format {self.recipe.quantization.format} has no kernel")
        others = {name: parts.other(name, dtype) for name in parts.others}
        return mixed_model(path, dtype, others, {name: parts.values(name) for name in parts.layers}, self.bits)


class ChannelMasters(Masters):
    """As Masters, for the `student/` of method llm-qat."""

    origin = "student"

    def __init__(self, directory: Path, quantization: Quantization) -> None:
        """Raises InputError for a directory that is no such student."""
        self.directory, self.quantization = Path(directory), quantization
        if student_quantization(self.directory) != quantization:
            raise InputError(f"{directory}: no student of method llm-qat with format {quantization.format}")
        self.bits = _bits(quantization)
        self.files = TensorFiles(self.directory)
        self.layers, self.unquantised = linear_layers(self.directory)

    def weight(self, layer: str) -> Tensor:
        return self.files.read(f"{layer}.weight").float()

    def quantized(self, layer: str) -> tuple[Tensor, Tensor, None]:
        """Codes, the scale of every row, and no zero point."""
        return *channel_codes(self.weight(layer), self.bits.weights, layer), None

    def fake_quantized(self, layer: str, dtype: torch.dtype) -> Tensor:
        codes, scale, _ = self.quantized(layer)
        return channel_values(codes, scale, self.bits.weights).to(dtype)

    def model(self, dtype: torch.dtype) -> PreTrainedModel:
        others = {name: self.other(name, dtype) for name in self.others}
        values = {layer: self.fake_quantized(layer, dtype) for layer in self.layers}
        return mixed_model(self.directory, dtype, others, values, self.bits)


def mixed_model(
    path: Path, dtype: torch.dtype, others: dict[str, Tensor], values: dict[str, Tensor], bits: MixedBits
) -> PreTrainedModel:
    """A model that quantises activations and cache as it was trained to; its weights are `values` as they are."""
    given = bits._replace(weights=OFF)
    modules = {
        name: MixedLinear.of(weight.to(dtype), others.pop(f"{name}.bias", None), given, is_cached(name))
        for name, weight in values.items()
    }
    return assembled(path, dtype, others, modules)


def _bits(quantization: Quantization) -> MixedBits:
    bits = quantization.bits
    assert bits is not None
    return bits
