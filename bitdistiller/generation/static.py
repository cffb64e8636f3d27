"""Static batches: the way of models whose caches continuous batching cannot keep in rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.sampling import SeededSampler


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    seeds: Sequence[int],
    sampling: Sampling,
    end: Sequence[int],
    rows: int,
) -> list[list[int]]:
    """
    New tokens of every prompt, in order, by transformers' `generate`: `rows` prompts at a time, padded on the left.

    Each batch runs until all of it has ended, so a row may go on behind its end token or its limit.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    new: dict[int, list[int]] = {}
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(limits[index] for index in batch),
            pad_token_id=end[0],
            eos_token_id=list(end),
            use_cache=True,
        )
        ids, mask = left_pad([prompts[index] for index in batch], end[0])
        sampler = SeededSampler([seeds[index] for index in batch], sampling.temperature, sampling.top_p, sampling.top_k)
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=settings,
            logits_processor=LogitsProcessorList([sampler]),
        )
        new |= zip(batch, output[:, ids.shape[1] :].tolist(), strict=True)
    return [new[index] for index in range(len(prompts))]


def left_pad(rows: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask (rows, longest), int64."""
    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
