"""The codes, scales and zero points of a packed checkpoint, as masters of another layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bitdistiller.errors import InputError
from bitdistiller.export.directory import quant_method, read_config
from bitdistiller.export.load import declared_dtype
from bitdistiller.export.masters import Masters, linear_layers
from bitdistiller.export.packed import packed_layout
from bitdistiller.layers import TensorFiles


class PackedMasters(Masters):
    """As Masters, for a packed checkpoint; a layer has codes, but no master weight."""

    origin = "packed"

    def __init__(self, directory: Path) -> None:
        """Raises InputError for a directory that holds no packed checkpoint of integer codes in full groups."""
        self.directory, config = Path(directory), read_config(directory)
        if quant_method(config) is None:
            raise InputError(f"{directory}: its weights are not packed; accepted: the checkpoint/ of the stage export")
        self.layout = packed_layout(self.directory, config)
        self.quantization, number_format = self.layout.recipe.quantization, self.layout.format
        if not number_format.packable or number_format.pad:
            padded = " with padded groups" if number_format.pad else ""
            raise InputError(
                f"{directory}: no other layout holds {number_format.name}{padded}; accepted: int2, int3 and int4 in "
                "groups that divide the input features"
            )
        self.dtype: torch.dtype = declared_dtype(config)
        self.files = TensorFiles(self.directory, self.layout.stem)
        self.layers, self.unquantised = linear_layers(self.directory)

    @property
    def others(self) -> list[str]:
        tensors = {f"{layer}.{suffix}" for layer in self.layers for suffix in self.layout.suffixes}
        return [name for name in self.files.names if name not in tensors]

    def quantized(self, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        tensors = {suffix: self.files.read(f"{layer}.{suffix}") for suffix in self.layout.suffixes}
        codes, scale, zero_point = self.layout.decode(tensors)
        assert zero_point is not None
        return codes, scale, zero_point

    def values(self, layer: str) -> Tensor:
        """The quantised weight (out, in) of a layer in float32."""
        return self.layout.format.dequantize(*self.quantized(layer), self.quantization.group_size)
