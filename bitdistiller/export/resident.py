"""A packed checkpoint whose weights stay packed in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from bitdistiller.errors import InputError
from bitdistiller.export.build import dense_config, finished
from bitdistiller.export.packed import packed_parts
from bitdistiller.layers import PackedLinear


def packed_model(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    """A checkpoint with PackedLinear for its quantised layers; InputError for formats without a kernel."""
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(dense_config(path), dtype=dtype)
    parts = packed_parts(path)
    others = {name: parts.other(name, dtype) for name in parts.others}
    for name in parts.layers:
        bias, layout = others.pop(f"{name}.bias", None), parts.layout
        layer = PackedLinear.from_codes(*parts.grid(name), layout.format, layout.group_size, bias)
        model.set_submodule(name, layer)
    _, unknown = model.load_state_dict(others, strict=False, assign=True)
    model.tie_weights()
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if unknown or empty:
        problem = f"unknown tensor {unknown[0]}" if unknown else f"tensor {empty[0]} is missing"
        raise InputError(f"{path}: {problem}; this is not a whole checkpoint of {type(model).__name__}")
    return finished(model, path)
