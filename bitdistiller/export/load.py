"""`load_model`: every model directory of this project as an ordinary transformers model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from bitdistiller.errors import InputError
from bitdistiller.export.build import checked, from_state
from bitdistiller.export.chosen import open_masters
from bitdistiller.export.directory import quant_method, read_config, student_quantization
from bitdistiller.export.lookup import Lookup
from bitdistiller.export.packed import packed_parts, packed_state
from bitdistiller.export.resident import packed_model


def load_model(
    path: str | os.PathLike[str],
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    packed: bool = False,
) -> PreTrainedModel:
    """
    The causal language model in a directory, in evaluation mode.

    Takes packed checkpoints of either layout, base models, and `student/` directories: the master weights of a student
    come fake-quantised, as they were trained, so that a student scores the same before and after packing.
    dtype: of parameters and arithmetic (default: what config.json says). A packed checkpoint is exact in the dtype it
    was exported for. device: where the model goes (default: the CPU). packed: keep the weights of a packed checkpoint
    packed in memory (`layers.PackedLinear`), for inference; its values are not rounded to dtype then.
    Raises InputError when the directory is no model, or its tensors are not exactly those of its architecture.
    """
    path = Path(path)
    config = read_config(path)
    chosen = (getattr(torch, dtype) if isinstance(dtype, str) else dtype) or declared_dtype(config)
    quantization = student_quantization(path)
    if packed:
        model = packed_model(path, chosen)
    elif quant_method(config) == Lookup.quant_method:
        model = _unpacked(path, chosen)
    elif quantization is not None:
        model = open_masters(path, quantization).model(chosen)
    else:
        model = checked(path, *AutoModelForCausalLM.from_pretrained(path, dtype=chosen, output_loading_info=True))
    return model.eval() if device is None else model.eval().to(device)


def declared_dtype(config: dict[str, Any]) -> torch.dtype:
    """The dtype config.json declares; float32 where it declares none."""
    return getattr(torch, config.get("dtype") or config.get("torch_dtype") or "float32")


def _unpacked(path: Path, dtype: torch.dtype) -> PreTrainedModel:
    parts = packed_parts(path)
    return parts.layout.build(parts, path, dtype) or from_state(path, packed_state(path, dtype), dtype)


def load_dense(path: Path, dtype: str) -> PreTrainedModel:
    """A student or a packed checkpoint as an ordinary model, read without compressed-tensors."""
    chosen, quantization = getattr(torch, dtype), student_quantization(path)
    written = quantization or packed_parts(path).layout.recipe.quantization
    if not written.grouped:
        raise InputError(
            f"{path}: format {written.format} is more than weights, which an ordinary model does not have; "
            "accepted: engine: transformers"
        )
    if quantization is not None:
        return open_masters(path, quantization).model(chosen)
    return from_state(path, packed_state(path, chosen), chosen)
