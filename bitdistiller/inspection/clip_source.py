"""The output directory of the stage `clip`: ratios and errors as the search recorded them."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from safetensors import safe_open

from bitdistiller.calibration.ranges import CLIP
from bitdistiller.calibration.report import CLIP_REPORT
from bitdistiller.errors import InputError
from bitdistiller.formats import get_format
from bitdistiller.inspection.masters_source import clip_quantization
from bitdistiller.inspection.rows import LayerRow, kept_columns
from bitdistiller.inspection.sources import Options, Source
from bitdistiller.inspection.statistics import summarise_histogram
from bitdistiller.reporting.clip_reports import ClipFile


class ClipSource(Source):
    """No weight is read. The input features are whole groups, so of a padded layer a few more than it has."""

    def __init__(self, path: Path, options: Options) -> None:
        options.refuse(("clip", "reference"), f"{path} is an output of clip and holds no weights")
        directory = path if path.is_dir() else path.parent
        self.quantization = options.resolve(path, clip_quantization(directory))
        self._records = {layer.name: layer for layer in _report(directory / CLIP_REPORT).layers}
        self._tensors = safe_open(directory / CLIP, "pt")
        self.layers = list(self._records)
        self.has_ratios = True
        tokens = max(layer.tokens for layer in self._records.values())
        self.title = f"clip search on {tokens} tokens"

    def row(self, layer: str) -> LayerRow:
        record, group_size = self._records[layer], self.quantization.group_size
        rows, groups, _ = self._tensors.get_slice(f"{layer}.max").get_shape()
        number_format = get_format(self.quantization.format, self.quantization.scale_dtype)
        return LayerRow(
            layer,
            rows,
            groups * group_size,
            rows * groups * group_size,
            **kept_columns(
                summarise_histogram(record.maximum_ratio, record.maximum_histogram),
                summarise_histogram(record.minimum_ratio, record.minimum_histogram),
            ),
            output_error_before=record.error_before,
            output_error_after=record.error_after,
            bits_per_weight=number_format.bits_per_weight(group_size),
        )


def is_clip_output(path: Path) -> bool:
    """Whether a path is an output directory of `clip`, or the file of ranges in it."""
    return (path / CLIP).is_file() or (path.is_file() and path.name == CLIP)


def _report(path: Path) -> ClipFile:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the stage clip writes it beside {CLIP}")
    try:
        return ClipFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: damaged ({str(error).splitlines()[0]}); run the stage clip again") from None
