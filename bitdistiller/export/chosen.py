"""Weights that a library chose (stage `baseline`) in the place of masters: their codes are packed as they are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bitdistiller.baselines.values import ChosenValues, holds_values
from bitdistiller.config import Quantization
from bitdistiller.errors import InputError
from bitdistiller.export.masters import Masters, linear_layers
from bitdistiller.export.ungrouped import ungrouped
from bitdistiller.formats import get_format


class ChosenMasters(Masters):
    """As Masters, for a `quantised/` directory of the stage `baseline`; a layer has codes, but no master weight."""

    origin = "baseline"

    def __init__(self, directory: Path, quantization: Quantization) -> None:
        """Raises InputError when the directory was made for another quantization."""
        self.directory, self.quantization = Path(directory), quantization
        self._values = ChosenValues(self.directory, quantization)
        self.files = self._values.files
        self.layers, self.unquantised = linear_layers(self.directory)
        self._format = get_format(quantization.format, scale_dtype=quantization.scale_dtype)

    @property
    def others(self) -> list[str]:
        return self._values.others

    def quantized(self, layer: str) -> tuple[Tensor, Tensor, Tensor | None]:
        return self._values.layer(layer)

    def fake_quantized(self, layer: str, dtype: torch.dtype) -> Tensor:
        return self._format.dequantize(*self.quantized(layer), self.quantization.group_size).to(dtype)


def open_masters(directory: Path, quantization: Quantization, clip: Path | None = None) -> Masters:
    """The weights in a directory, whichever stage wrote it; raises InputError as Masters does."""
    own = ungrouped(quantization)
    if own is not None:
        return own.masters(directory, quantization)
    if not holds_values(directory):
        return Masters(directory, quantization, clip)
    if clip is not None:
        raise InputError(f"clip: the weights in {directory} are a library's, quantised already; drop it")
    return ChosenMasters(directory, quantization)
