"""Naive teacher completions: one prompt at a time, no padding, no cache, one draw per step from the softmax."""

import numpy as np
import torch


def draw(logits: np.ndarray, noise: np.ndarray, temperature: float, top_p: float = 1.0) -> int:
    """The token that arrives first when token t arrives after noise[t] / probability[t]; float64 throughout."""
    if temperature == 0:
        return int(np.argmax(logits))
    weights = np.exp((logits - logits.max()) / temperature)
    probabilities = weights / weights.sum()
    kept, covered = set(), 0.0
    for token in sorted(range(len(probabilities)), key=lambda t: -probabilities[t]):
        if covered >= top_p:
            break
        kept.add(token)
        covered += probabilities[token]
    return min(sorted(kept), key=lambda token: noise[token] / probabilities[token])


@torch.no_grad()
def complete(
    model, prompt_ids: list[int], seed: int, limit: int, temperature: float, end: set[int]
) -> tuple[list[int], str]:
    """Token ids after the prompt (the end token left out) and why they stop: "eos" or "length"."""
    stream = np.random.Generator(np.random.Philox(seed))
    ids = list(prompt_ids)
    for _ in range(limit):
        logits = model(torch.tensor([ids])).logits[0, -1].double().numpy()
        token = draw(logits, stream.standard_exponential(len(logits)), temperature)
        if token in end:
            return ids[len(prompt_ids) :], "eos"
        ids.append(token)
    return ids[len(prompt_ids) :], "length"
