"""Ordinary transformers models from a directory's configuration and tensors of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from bitdistiller.errors import InputError


def from_state(path: Path, state: dict[str, Tensor], dtype: torch.dtype) -> PreTrainedModel:
    """A model of the architecture in `path` with the given tensors."""
    config = dense_config(path)
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    loaded = model_class.from_pretrained(None, config=config, state_dict=state, dtype=dtype, output_loading_info=True)
    return finished(checked(path, *loaded), path)


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
