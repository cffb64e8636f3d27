"""A packed checkpoint whose weights stay packed in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from bitdistiller.export.build import assembled
from bitdistiller.export.packed import packed_parts
from bitdistiller.layers import PackedLinear


def packed_model(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """A checkpoint with packed layers for its quantised ones; InputError for formats without a kernel."""
    parts = packed_parts(path)
    built = parts.layout.build(parts, path, dtype, packed=True)
    if built is not None:
        return built
    others = {name: parts.other(name, dtype) for name in parts.others}
    modules = {}
    for name in parts.layers:
        bias, layout = others.pop(f"{name}.bias", None), parts.layout
        modules[name] = PackedLinear.from_codes(*parts.grid(name), layout.format, layout.group_size, bias)
    return assembled(path, dtype, others, modules)
