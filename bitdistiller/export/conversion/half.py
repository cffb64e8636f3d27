"""Which scales survive as float16, the precision of scales in GPTQ and GGUF files."""

from __future__ import annotations

import torch
from torch import Tensor


def to_half(value: Tensor, matters: Tensor | bool = True) -> tuple[Tensor, Tensor]:
    """
    `value` in float16, and where that changes it, of the elements that `matters` names.

    A scale whose group holds zeros alone does not matter: it is kept finite, so that zero times it stays zero.
    """
    half = value.to(torch.float16)
    changed = (half.to(value.dtype) != value) & matters
    return torch.where(half.isfinite(), half, torch.zeros_like(half)), changed
