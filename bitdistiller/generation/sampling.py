"""Sampling that depends on the prompt's own seed alone, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def prompt_uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Uniform numbers in [0, 1), shape (len(seeds), steps), float64: row i comes from `seeds[i]` alone."""
    rows = [np.random.Generator(np.random.Philox(seed)).random(steps) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def sample(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """
    Draw one token per row by inverting the cumulative distribution.

    logits (batch, vocabulary), any float dtype; uniforms (batch,) float64; returns (batch,) int64. Temperature 0 takes
    the largest logit. top_p keeps the smallest set of most likely tokens whose probability reaches it.
    """
    if temperature == 0.0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    if top_p < 1.0:
        ordered, indices = probabilities.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(-1, indices, ordered)
    cumulative = probabilities.cumsum(-1)
    targets = uniforms.to(cumulative).unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


class SeededSampler:
    """A transformers logits processor that leaves exactly one token possible per row: the one `sample` draws."""

    def __init__(self, seeds: Sequence[int], prompt_length: int, steps: int, temperature: float, top_p: float) -> None:
        self.uniforms = prompt_uniforms(seeds, steps)
        self.prompt_length = prompt_length
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniforms = self.uniforms[:, input_ids.shape[1] - self.prompt_length].to(scores.device)
        chosen = sample(scores, uniforms, self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen.unsqueeze(-1), 0.0)
