"""A Llama with heads twice as wide, exactly the same function: vLLM's CPU kernels begin at 32 channels a head."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def widen_model(source: Path, target: Path) -> Path:
    """
    Save `source` in float32 with head_dim doubled; returns `target`.

    Channel i of a head turns at the frequency of channel 2 i of a head twice as wide, so that queries and keys move
    there, zeros between them; values get zeros behind them, which the output projection ignores. Queries grow by the
    root of 2, because scores are divided by the root of the width.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    narrow = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    width = narrow.config.head_dim
    config = LlamaConfig(**{**narrow.config.to_dict(), "head_dim": 2 * width, "dtype": "float32"})
    wide = LlamaForCausalLM(config)
    wide.load_state_dict({name: _widen(name, tensor, width) for name, tensor in narrow.state_dict().items()})
    wide.save_pretrained(target)
    for path in source.glob("*token*"):
        shutil.copyfile(path, target / path.name)
    return target


def _widen(name: str, weight: Tensor, width: int) -> Tensor:
    spread, behind = 2 * torch.arange(width), torch.arange(width)
    projections: dict[str, Any] = {
        "q_proj": lambda: 2**0.5 * _rows(weight, spread),
        "k_proj": lambda: _rows(weight, spread),
        "v_proj": lambda: _rows(weight, behind),
        "o_proj": lambda: _rows(weight.T, behind).T,
    }
    return projections.get(name.split(".")[-2], lambda: weight)()


def _rows(weight: Tensor, places: Tensor) -> Tensor:
    """Rows of every head at `places` of a head twice as wide."""
    heads = weight.view(-1, len(places), weight.shape[-1])
    wide = torch.zeros(heads.shape[0], 2 * len(places), weight.shape[-1])
    wide[:, places] = heads
    return wide.flatten(0, 1).contiguous()
