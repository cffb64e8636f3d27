"""The codes, scales and zero points of a packed checkpoint, as masters of another layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bitdistiller.export.conversion.unfit import Unfit, require_grouped
from bitdistiller.export.directory import read_config
from bitdistiller.export.load import declared_dtype
from bitdistiller.export.masters import Masters, linear_layers
from bitdistiller.export.packed import packed_parts


class PackedMasters(Masters):
    """As Masters, for a packed checkpoint; a layer has codes, but no master weight."""

    origin = "packed"

    def __init__(self, directory: Path) -> None:
        """Raises InputError for a directory without a packed checkpoint, Unfit for other codes than integers."""
        self.directory, self._parts = Path(directory), packed_parts(Path(directory))
        layout = self._parts.layout
        self.quantization = layout.recipe.quantization
        require_grouped(self.directory, self.quantization)
        number_format = layout.format
        if not number_format.packable or number_format.pad:
            padded = " with padded groups" if number_format.pad else ""
            raise Unfit(
                f"{directory}: no other layout holds {number_format.name}{padded}; accepted: int2, int3 and int4 in "
                "groups that divide the input features"
            )
        self.dtype: torch.dtype = declared_dtype(read_config(self.directory))
        self.files = self._parts.files
        self.layers, self.unquantised = linear_layers(self.directory)

    @property
    def others(self) -> list[str]:
        return self._parts.others

    def quantized(self, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        codes, scale, zero_point = self._parts.grid(layer)
        assert zero_point is not None
        return codes, scale, zero_point

    def values(self, layer: str) -> Tensor:
        """The quantised weight (out, in) of a layer in float32."""
        return self._parts.values(layer)
