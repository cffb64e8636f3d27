"""Where OneBit starts: signs of the weights between two vectors (arXiv 2402.11295, section 3.3); all else is frozen."""

from __future__ import annotations

from typing import Any

import torch

from bitdistiller.calibration.sign_value import latent_weight, sign_value_decomposition
from bitdistiller.config import OneBitStart
from bitdistiller.layers import OneBitLinear, quantized_linear_names


@torch.no_grad()
def start_onebit(model: Any, start: OneBitStart) -> list[str]:
    """
    Swap every linear layer of the decoder blocks for a OneBitLinear, in place; returns their names.

    Embeddings, head and norms stay as they are and do not train. Raises InputError for a layer with infinite weights.
    """
    model.requires_grad_(False)
    names = quantized_linear_names(model)
    for name in names:
        linear = model.get_submodule(name)
        vectors = sign_value_decomposition(linear.weight, start.decomposition, name)
        bias = None if linear.bias is None else linear.bias.detach()
        model.set_submodule(name, OneBitLinear.of(latent_weight(linear.weight, start.latent), *vectors, bias))
    return names
