"""Ordinary transformers models from a directory's configuration and tensors of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from bitdistiller.errors import InputError


def from_state(path: Path, state: dict[str, Tensor], dtype: torch.dtype) -> PreTrainedModel:
    """A model of the architecture in `path` with the given tensors."""
    config = dense_config(path)
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    loaded = model_class.from_pretrained(None, config=config, state_dict=state, dtype=dtype, output_loading_info=True)
    return finished(checked(path, *loaded), path)


def assembled(
    path: Path, dtype: torch.dtype, others: dict[str, Tensor], modules: dict[str, nn.Module]
) -> PreTrainedModel:
    """
    A model of the architecture in `path` with modules of ours in the place of its own, and `others` for the rest.

    Raises InputError where tensors are missing or unknown.
    """
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(dense_config(path), dtype=dtype)
    for name, module in modules.items():
        model.set_submodule(name, module)
    _, unknown = model.load_state_dict(others, strict=False, assign=True)
    model.tie_weights()
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if unknown or empty:
        problem = f"unknown tensor {unknown[0]}" if unknown else f"tensor {empty[0]} is missing"
        raise InputError(f"{path}: {problem}; this is not a whole checkpoint of {type(model).__name__}")
    return finished(model.requires_grad_(False), path)


def finished(model: PreTrainedModel, path: Path) -> PreTrainedModel:
    """The model with its origin and its generation defaults."""
    model.name_or_path = str(path)
    if (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path)
    return model


def dense_config(path: Path) -> PretrainedConfig:
    """The configuration of the architecture in `path`, without that of its quantisation."""
    config = AutoConfig.from_pretrained(path)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def checked(path: Path, model: PreTrainedModel, info: dict[str, Any]) -> PreTrainedModel:
    """The model, or InputError when a tensor was missing, unknown, misshapen or unreadable."""
    problems = {key.replace("_", " "): sorted(map(str, names)) for key, names in info.items() if names}
    if problems:
        kind, names = next(iter(problems.items()))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(f"{path}: {kind}: {names[0]}{more}; this is not a whole checkpoint of {type(model).__name__}")
    return model
