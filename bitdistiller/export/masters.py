"""The weights that are to be quantised: a full-precision model with its clip ranges, or a trained student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from bitdistiller.config import Quantization
from bitdistiller.errors import InputError
from bitdistiller.export.build import from_state
from bitdistiller.export.clip_ranges import ClipRanges
from bitdistiller.export.directory import has_trained_grid, quant_method, read_config, student_quantization
from bitdistiller.export.student_grid import StudentGrid
from bitdistiller.formats import get_format, resolve_group_size
from bitdistiller.layers import TensorFiles, quantized_linear_names


class Masters:
    """Master weights of the layers that a quantization applies to, read one at a time, and the tensors beside them.

    layers: the quantised linear layers by name, with their shapes (out, in), in the order of the model.
    unquantised: names of the other linear layers. origin: student, clipped or base.
    """

    def __init__(self, directory: Path, quantization: Quantization, clip: Path | None = None) -> None:
        """Raises InputError when directory, quantization and clip ranges do not fit each other."""
        self.directory, self.quantization = Path(directory), quantization
        is_student = _check_origin(self.directory, quantization, clip)
        self.origin = "student" if is_student else "clipped" if clip is not None else "base"
        self.files = TensorFiles(self.directory)
        self.layers, self.unquantised = linear_layers(self.directory)
        for name, (_, in_features) in self.layers.items():
            resolve_group_size(in_features, quantization.group_size, name, quantization.pad)
        self._format = get_format(quantization.format, quantization.scale_dtype, pad=quantization.pad)
        self._clip = ClipRanges(clip, quantization, self.layers) if clip is not None else None
        self._grid = StudentGrid(self.directory, self._format, self.layers) if has_trained_grid(directory) else None

    @property
    def others(self) -> list[str]:
        """Names of the tensors that are not quantised, in the order of the files."""
        quantised = {f"{layer}.weight" for layer in self.layers}
        return [name for name in self.files.names if name not in quantised]

    def weight(self, layer: str) -> Tensor:
        """The master weight (out, in) of a layer in float32, clipped."""
        weight = self.files.read(f"{layer}.weight").float()
        return weight if self._clip is None else self._clip.apply(layer, weight)

    def quantized(self, layer: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes, scales and zero points of a layer; see NumberFormat.quantize."""
        weight, group_size = self.weight(layer), self.quantization.group_size
        if self._grid is not None:
            return self._grid.quantize(layer, weight, group_size)
        return self._format.quantize(weight, group_size, name=layer)

    def fake_quantized(self, layer: str, dtype: torch.dtype) -> Tensor:
        """What the fake-quantised layer multiplies with, (out, in): computed in float32, rounded once to `dtype`."""
        weight, group_size = self.weight(layer), self.quantization.group_size
        if self._grid is not None:
            return self._grid.fake_quantize(layer, weight, group_size, dtype)
        return self._format.fake_quantize(weight, group_size, name=layer, dtype=dtype)

    def other(self, name: str, dtype: torch.dtype) -> Tensor:
        """A tensor that is not quantised; floating-point ones in `dtype`."""
        tensor = self.files.read(name)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def state(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """All tensors of the fake-quantised model."""
        state = {name: self.other(name, dtype) for name in self.others}
        return state | {f"{layer}.weight": self.fake_quantized(layer, dtype) for layer in self.layers}

    def model(self, dtype: torch.dtype) -> PreTrainedModel:
        """The fake-quantised model: every quantised weight computed in float32 and rounded once to `dtype`."""
        return from_state(self.directory, self.state(dtype), dtype)

    @property
    def checks(self) -> dict[str, Any]:
        """What else the report of an export says of these weights."""
        return {}


def linear_layers(directory: Path) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """The linear layers of a model that are quantised, with their shapes (out, in), and the names of the others."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = quantized_linear_names(model)
    if not chosen:
        raise InputError(f"{directory}: no linear layer to quantise, so nothing may be written under a quantised name")
    shapes = {name: (linears[name].out_features, linears[name].in_features) for name in chosen}
    return shapes, [name for name in linears if name not in shapes]


def _check_origin(directory: Path, quantization: Quantization, clip: Path | None) -> bool:
    """Whether the directory holds a student; InputError for one of another format and for quantised weights."""
    method = quant_method(read_config(directory))
    if method is not None:
        raise InputError(f"{directory}: its weights are quantised already ({method}); accepted: full-precision weights")
    trained_for = student_quantization(directory)
    if trained_for is None:
        return False
    if clip is not None:
        raise InputError(f"clip: {directory} is a trained student, whose weights were clipped before training; drop it")
    asked, trained = quantization.model_dump(mode="json"), trained_for.model_dump(mode="json")
    for key, value in asked.items():
        if value != trained[key]:
            raise InputError(
                f"quantization.{key}: {value} was asked for, but the student in {directory} is {trained[key]}"
            )
    return True
