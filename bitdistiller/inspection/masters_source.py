"""A full-precision model, with or without clip ranges, or a trained student: quantised here to see what that does."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from bitdistiller.calibration.ranges import clip_file
from bitdistiller.config import Quantization
from bitdistiller.export.clip_ranges import ClipRanges
from bitdistiller.export.directory import parse_quantization, student_quantization
from bitdistiller.export.masters import Masters
from bitdistiller.formats import get_format
from bitdistiller.inspection import statistics
from bitdistiller.inspection.rows import LayerRow, code_columns, kept_columns, relative, weight_columns
from bitdistiller.inspection.sources import Options, Reference, Source, require_groups


class MastersSource(Source):
    """Statistics are of the weights as they are in the files; errors of their quantisation, after clipping."""

    def __init__(self, path: Path, options: Options) -> None:
        student, clip = student_quantization(path), options.clip
        recorded = student if clip is None else clip_quantization(clip)
        self.quantization = options.resolve(path if clip is None else clip_file(clip), recorded)
        require_groups(path, self.quantization)
        self.masters = Masters(path, self.quantization, clip)
        self.clip = None if clip is None else ClipRanges(clip, self.quantization, self.masters.layers)
        self.has_ratios = clip is not None
        self.reference = None if options.reference is None else Reference(options.reference)
        self.format = get_format(self.quantization.format, self.quantization.scale_dtype, pad=self.quantization.pad)
        self.layers = list(self.masters.layers)
        self.title = "trained student" if student else "full-precision weights"
        self.title += f" with the ranges of {clip}" if clip else ""

    def row(self, layer: str) -> LayerRow:
        shape, group_size = self.masters.layers[layer], self.quantization.group_size
        weight = self.masters.files.read(f"{layer}.weight").float()
        codes, *grid = self.masters.quantized(layer)
        values = self.format.dequantize(codes, *grid, group_size)
        against = weight if self.reference is None else self.reference.weight(layer, shape)
        error, energy = statistics.squared_error(values, against)
        return LayerRow(
            layer,
            *shape,
            weight.numel(),
            **weight_columns(weight, group_size),
            **code_columns(codes, self.format.bits),
            **self._clip_columns(layer, weight, against),
            error=relative(error, energy),
            energy=energy,
            bits_per_weight=self.format.bits_per_weight(group_size),
        )

    def _clip_columns(self, layer: str, weight: Tensor, against: Tensor) -> dict[str, float | None]:
        """What clipping changed; nothing for a layer without ranges but its error, which is the same twice."""
        if self.clip is None:
            return {}
        group_size = self.quantization.group_size
        plain = self.format.dequantize(*self.format.quantize(weight, group_size, name=layer), group_size)
        columns = {"error_unclipped": relative(*statistics.squared_error(plain, against))}
        ends = self.clip.ends(layer)
        if ends is None:
            return columns
        maximum, minimum = statistics.kept_shares(weight, *ends, group_size)
        return columns | kept_columns(statistics.summarise(maximum), statistics.summarise(minimum))


def clip_quantization(path: Path) -> Quantization:
    """What clip ranges were searched for; InputError when their file does not say."""
    file = clip_file(path)
    with safe_open(file, "pt") as tensors:
        return parse_quantization(file, tensors.metadata() or {})
