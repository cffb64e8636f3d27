"""A packed checkpoint whose weights stay packed in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from bitdistiller.export.build import assembled
from bitdistiller.export.packed import PackedParts, packed_parts
from bitdistiller.export.signs import Signs, onebit_model
from bitdistiller.layers import PackedLinear


def packed_model(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """A checkpoint with packed layers for its quantised ones; InputError for formats without a kernel."""
    parts = packed_parts(path)
    if isinstance(parts.layout, Signs):
        return signs_model(parts, path, dtype, packed=True)
    others = {name: parts.other(name, dtype) for name in parts.others}
    modules = {}
    for name in parts.layers:
        bias, layout = others.pop(f"{name}.bias", None), parts.layout
        modules[name] = PackedLinear.from_codes(*parts.grid(name), layout.format, layout.group_size, bias)
    return assembled(path, dtype, others, modules)


def signs_model(parts: PackedParts, path: Path, dtype: torch.dtype, packed: bool = False) -> PreTrainedModel:
    """The model of a packed 1-bit checkpoint, its signs dense or packed in memory."""
    others = {name: parts.other(name, dtype) for name in parts.others}
    return onebit_model(path, dtype, others, {name: parts.grid(name) for name in parts.layers}, packed)
