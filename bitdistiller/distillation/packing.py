"""Whether a model keeps sequences that share a row apart: asked of the model itself, by trying."""

from __future__ import annotations

from typing import Any

import torch

from bitdistiller.distillation.layouts import Layout
from bitdistiller.errors import InputError

LENGTHS = ((5, 9, 6), (12, 8))
TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-9}
HALF_TOLERANCE = 0.03
"""Largest difference allowed, as a share of the largest hidden state: above rounding (of TF32 and of 16-bit types),
below what sequences that see each other change."""


@torch.no_grad()
def supports_packing(model: Any) -> bool:
    """
    True where two rows of several short sequences give the hidden states that each sequence gives alone.

    Runs the model's decoder (without its head) on a few tokens, in the precision of its weights. A model that fails on
    such input does not support it.
    """
    body, was_training = model.base_model, model.training
    weight = next(body.parameters())
    model.eval()
    try:
        with torch.autocast(weight.device.type, enabled=False):
            together, alone = _packed(body), _alone(body)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return False
    finally:
        model.train(was_training)
    tolerance = TOLERANCES.get(weight.dtype, HALF_TOLERANCE)
    return bool((together - alone).abs().max() <= tolerance * alone.abs().max())


def choose_layout(batching: str, *models: Any) -> Layout:
    """
    The layout that `batching` stands for: `auto` is packed where all models that will see the rows support it.

    Raises InputError for packed rows that a model does not support, whose sequences would see each other.
    """
    if batching in ("grouped", "padded"):
        return batching
    if all(map(supports_packing, models)):
        return "packed"
    if batching == "packed":
        kinds = ", ".join(dict.fromkeys(type(model).__name__ for model in models))
        raise InputError(
            f"training.batching: packed: the attention of {kinds} does not keep sequences of a row apart; "
            "accepted here: auto, grouped, padded"
        )
    return "grouped"


def _packed(body: Any) -> torch.Tensor:
    ids = torch.stack([torch.cat(list(_sequences(row, body))) for row in range(len(LENGTHS))])
    positions = torch.stack([torch.cat([torch.arange(n, device=ids.device) for n in row]) for row in LENGTHS])
    hidden = body(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1).double()


def _alone(body: Any) -> torch.Tensor:
    sequences = [ids for row in range(len(LENGTHS)) for ids in _sequences(row, body)]
    hidden = [body(input_ids=ids.unsqueeze(0), use_cache=False).last_hidden_state[0] for ids in sequences]
    return torch.cat(hidden).double()


def _sequences(row: int, body: Any) -> list[torch.Tensor]:
    vocabulary, device = body.config.get_text_config().vocab_size, next(body.parameters()).device
    start = sum(map(sum, LENGTHS[:row]))
    numbers = torch.arange(start, start + sum(LENGTHS[row]), device=device)
    return list((numbers * 7919 % vocabulary).split(LENGTHS[row]))
