"""How the codes of a layer lie in a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitdistiller.config import ExportRecipe
from bitdistiller.formats import NumberFormat, get_format

Grid = tuple[Tensor, Tensor, Tensor | None]
"""Codes (out, in) uint8, scale (out, groups[, 2]), zero point (out, groups) or None: what `quantize` returns."""


class Layout(ABC):
    """Names, dtypes and shapes of a quantised layer's tensors in the file."""

    stem: ClassVar[str]
    """Name of the weight files, without `.safetensors`."""
    quant_method: ClassVar[str]
    """The value of `quantization_config.quant_method` in config.json."""

    def __init__(self, recipe: ExportRecipe) -> None:
        self.recipe = recipe
        quantization = recipe.quantization
        self.group_size = quantization.group_size
        self.format: NumberFormat = get_format(quantization.format, quantization.scale_dtype, pad=quantization.pad)

    @abstractmethod
    def encode(self, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> dict[str, Tensor]:
        """The layer's tensors by the suffix that follows `<layer>.` in the file."""

    @abstractmethod
    def decode(self, tensors: dict[str, Tensor]) -> Grid:
        """What was given to `encode`, from its tensors."""

    @abstractmethod
    def quantization_config(self, unquantised: list[str]) -> dict[str, Any]:
        """The value of `quantization_config` in config.json; `unquantised` names the other linear layers."""

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """The suffixes of a layer's tensors."""

    def minimum_bits(self, layers: dict[str, tuple[int, int]]) -> float:
        """Bits a weight that the number format itself takes for layers of these shapes (out, in)."""
        return self.format.bits_per_weight(self.group_size)

    def build(self, parts: Any, path: Path, dtype: torch.dtype, packed: bool = False) -> PreTrainedModel | None:
        """The model of a checkpoint's `PackedParts`, where its layers are no dense linear ones."""
        return None

    def dequantize(self, tensors: dict[str, Tensor]) -> Tensor:
        """The layer's weight (out, in) in float32."""
        codes, scale, zero_point = self.decode(tensors)
        return self.format.dequantize(codes, scale, zero_point, self.group_size)
