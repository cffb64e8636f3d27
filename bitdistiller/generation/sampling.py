"""Sampling that depends on the prompt's own seed alone, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bitdistiller.generation.engine import Sampling


class PromptNoise:
    """Random numbers for a batch of prompts: each has its own stream, a number per token of the vocabulary a step."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.streams: list[np.random.Generator] = []
        self.add(seeds)

    def add(self, seeds: Sequence[int]) -> None:
        """New prompts behind the others."""
        self.streams += [np.random.Generator(np.random.Philox(seed)) for seed in seeds]

    def keep(self, rows: Sequence[int]) -> None:
        """From now on the prompts at these rows, in this order."""
        self.streams = [self.streams[row] for row in rows]

    def step(self, vocabulary: int) -> torch.Tensor:
        """The next step's standard exponential numbers, positive, shape (len(seeds), vocabulary), float64."""
        numbers = np.empty((len(self.streams), vocabulary))
        for stream, row in zip(self.streams, numbers, strict=True):
            stream.standard_exponential(out=row)
        np.maximum(numbers, np.finfo(np.float64).tiny, out=numbers)  # in torch, a second team of threads would join
        return torch.from_numpy(numbers)


def draw(logits: torch.Tensor, noise: torch.Tensor | None, sampling: Sampling) -> torch.Tensor:
    """`sample` as `sampling` says."""
    return sample(logits, noise, sampling.temperature, sampling.top_p, sampling.top_k)


def sample(
    logits: torch.Tensor, noise: torch.Tensor | None, temperature: float, top_p: float, top_k: int | None = None
) -> torch.Tensor:
    """
    Draw one token per row from softmax(logits / temperature): the largest of probability / exponential number.

    logits (batch, vocabulary), any float dtype; noise of that shape, float64; returns (batch,) int64. Temperature 0
    takes the largest logit. top_k keeps as many most likely tokens, and those as likely as the last of them; of these
    top_p keeps the smallest set of most likely tokens whose probability reaches it. A draw
    changes only when the two best tokens are closer than rounding, which inverting the cumulative distribution does
    not offer: there, an error anywhere in the vocabulary moves every token behind it.
    """
    if temperature == 0.0 or noise is None:
        return logits.argmax(-1)
    scaled = logits.double() / temperature
    if top_k is not None and top_k < scaled.shape[-1]:
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[:, -1:], -torch.inf)
    if top_p < 1.0:
        scaled = _nucleus(scaled, top_p)
    return (scaled - noise.to(scaled).log()).argmax(-1)


def _nucleus(scaled: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered, indices = torch.softmax(scaled, dim=-1).sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return scaled.masked_fill(torch.zeros_like(outside).scatter(-1, indices, outside), -torch.inf)


class SeededSampler:
    """A transformers logits processor that leaves exactly one token possible per row; call it once a step, in order."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float, top_k: int | None = None) -> None:
        self.noise = PromptNoise(seeds)
        self.temperature, self.top_p, self.top_k = temperature, top_p, top_k

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = self.noise.step(scores.shape[-1]) if self.temperature else None
        chosen = sample(scores, noise, self.temperature, self.top_p, self.top_k)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen.unsqueeze(-1), 0.0)
