"""OneBit's packed layout: the signs of every layer, eight to a byte, between its two vectors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitdistiller.config import ExportRecipe, Quantization
from bitdistiller.errors import InputError
from bitdistiller.export.build import assembled
from bitdistiller.export.directory import student_quantization
from bitdistiller.export.layout import Grid, Layout
from bitdistiller.export.masters import Masters, linear_layers
from bitdistiller.formats import check_whole_bytes, pack_codes, unpack_codes, zero_signs
from bitdistiller.layers import VECTOR_STEM, VECTORS, OneBitLinear, PackedOneBitLinear, TensorFiles

logger = logging.getLogger(__name__)

VECTOR_BITS = 16
"""Of an entry of the vectors in the least possible size."""


class Signs(Layout):
    """
    `weight_signs` (out, in / 8) uint8 as `formats.pack_signs` packs them, and both vectors in float32, as trained.

    The three parts of a layer are its codes (1 for -1, 0 for +1), `weight_scale` (out,) and `input_factor` (in,).
    """

    stem = "signs"
    quant_method = "bitdistiller"

    def __init__(self, recipe: ExportRecipe) -> None:
        self.recipe = recipe

    @property
    def suffixes(self) -> tuple[str, ...]:
        return ("weight_signs", *VECTORS)

    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> dict[str, Tensor]:
        assert zero_point is not None
        return {"weight_signs": pack_codes(codes, 1), "weight_scale": scale, "input_factor": zero_point}

    def decode(self, tensors: dict[str, Tensor]) -> Grid:
        factor = tensors["input_factor"]
        return unpack_codes(tensors["weight_signs"], 1, len(factor)), tensors["weight_scale"], factor

    def dequantize(self, tensors: dict[str, Tensor]) -> Tensor:
        return 1.0 - 2.0 * self.decode(tensors)[0].float()

    def quantization_config(self, unquantised: list[str]) -> dict[str, Any]:
        return {"quant_method": self.quant_method, **self.recipe.quantization.record, "ignore": unquantised}

    def minimum_bits(self, layers: dict[str, tuple[int, int]]) -> float:
        weights = sum(rows * columns for rows, columns in layers.values())
        return 1 + VECTOR_BITS * sum(rows + columns for rows, columns in layers.values()) / weights

    def build(self, parts: Any, path: Path, dtype: torch.dtype, packed: bool = False) -> PreTrainedModel:
        others = {name: parts.other(name, dtype) for name in parts.others}
        return onebit_model(path, dtype, others, {name: parts.grid(name) for name in parts.layers}, packed)


class SignMasters(Masters):
    """As Masters, for the `student/` of method onebit: latent weights, of which the signs count, and vectors."""

    origin = "student"

    def __init__(self, directory: Path, quantization: Quantization) -> None:
        """Raises InputError for a directory that is no such student, or lacks vectors."""
        self.directory, self.quantization = Path(directory), quantization
        if student_quantization(self.directory) != quantization:
            raise InputError(f"{directory}: no student of method onebit; signs are packed of trained ones alone")
        self.files, self._vectors = TensorFiles(self.directory), TensorFiles(self.directory, VECTOR_STEM)
        self.layers, self.unquantised = linear_layers(self.directory)
        for layer, (_, columns) in self.layers.items():
            check_whole_bytes(columns, layer)
            for kind in VECTORS:
                if f"{layer}.{kind}" not in self._vectors:
                    raise InputError(
                        f"{self.directory}/{VECTOR_STEM}.safetensors: {layer}.{kind} is missing; train again"
                    )

    def quantized(self, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, `weight_scale` and `input_factor`; a latent weight of 0 becomes +1."""
        weight = self.weight(layer)
        if weight.isnan().any():
            raise InputError(f"{self.directory}: {layer}: NaN has no sign")
        scale, factor = (self._vectors.read(f"{layer}.{kind}").float() for kind in VECTORS)
        return (weight < 0).to(torch.uint8), scale, factor

    def weight(self, layer: str) -> Tensor:
        return self.files.read(f"{layer}.weight").float()

    def fake_quantized(self, layer: str, dtype: torch.dtype) -> Tensor:
        return torch.where(self.weight(layer) < 0, -1.0, 1.0).to(dtype)

    def model(self, dtype: torch.dtype) -> PreTrainedModel:
        others = {name: self.other(name, dtype) for name in self.others}
        return onebit_model(self.directory, dtype, others, {layer: self.quantized(layer) for layer in self.layers})

    @property
    def checks(self) -> dict[str, Any]:
        """`zero_signs`: latent weights of exactly 0, which training multiplied by 0 and packing makes +1."""
        zeros = sum(zero_signs(self.weight(layer)) for layer in self.layers)
        if zeros:
            logger.warning("%s: %d latent weights are exactly 0; packed, they count as +1", self.directory, zeros)
        return {"zero_signs": zeros}


def onebit_model(
    path: Path, dtype: torch.dtype, others: dict[str, Tensor], layers: dict[str, Grid], packed: bool = False
) -> PreTrainedModel:
    """
    A 1-bit model of the architecture in `path`; `layers`: codes and vectors by name, `others`: all other tensors.

    Signs lie dense in `dtype`, or packed; vectors in float32 either way.
    """
    modules = {}
    for name, (codes, scale, factor) in layers.items():
        bias = others.pop(f"{name}.bias", None)
        if packed:
            modules[name] = PackedOneBitLinear(pack_codes(codes, 1), scale, factor, bias)
        else:
            modules[name] = OneBitLinear.of((1.0 - 2.0 * codes.float()).to(dtype), scale, factor, bias)
    return assembled(path, dtype, others, modules)
