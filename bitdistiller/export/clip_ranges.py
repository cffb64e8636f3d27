"""Clip ranges (docs/method.md 2) applied to one weight at a time."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from bitdistiller.calibration.ranges import clip_file, clip_weight
from bitdistiller.config import Quantization
from bitdistiller.errors import InputError
from bitdistiller.formats.grouping import group_count


class ClipRanges:
    """The tensors `<layer>.max` and `<layer>.min`, float32 (out, groups, 1), of the layers that are clipped."""

    def __init__(self, path: Path, quantization: Quantization, layers: dict[str, tuple[int, int]]) -> None:
        """`layers`: shapes (out, in) by name. Raises InputError for ranges of another format, group size or model."""
        self.path = clip_file(path)
        self._tensors = safe_open(self.path, "pt")
        metadata = self._tensors.metadata() or {}
        for key, value in quantization.model_dump(mode="json").items():
            if metadata.get(key, str(value)) != str(value):
                raise InputError(f"{self.path}: searched for {key} {metadata[key]}, but {value} is to be exported")
        self._names = set(self._tensors.keys())
        self._group_size = quantization.group_size
        for name in sorted(self._names):
            self._check(name, layers.get(name.rpartition(".")[0]), quantization.group_size)

    def ends(self, layer: str) -> tuple[Tensor, Tensor] | None:
        """The largest and the smallest value of every group, (out, groups, 1); None for a layer without ranges."""
        if f"{layer}.max" not in self._names:
            return None
        return self._tensors.get_tensor(f"{layer}.max"), self._tensors.get_tensor(f"{layer}.min")

    def apply(self, layer: str, weight: Tensor) -> Tensor:
        """Clamp a weight (out, in) to the ranges of its groups; a layer without ranges is returned as it is."""
        ends = self.ends(layer)
        return weight if ends is None else clip_weight(weight, *ends, self._group_size)

    def _check(self, name: str, shape: tuple[int, int] | None, group_size: int) -> None:
        if shape is None:
            raise InputError(f"{self.path}: {name}: not a range of a quantised layer of this model")
        found, expected = (
            list(self._tensors.get_slice(name).get_shape()),
            [shape[0], group_count(shape[1], group_size), 1],
        )
        if found != expected:
            raise InputError(f"{self.path}: {name}: shape {found}; the model's layer needs {expected}")
