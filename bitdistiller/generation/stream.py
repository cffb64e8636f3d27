"""One answer, token by token as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from bitdistiller.generation.engine import Sampling
from bitdistiller.generation.integer_cache import inference_cache
from bitdistiller.generation.sampling import PromptNoise, draw

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@torch.inference_mode()
def stream_tokens(
    model: Any, prompt: Sequence[int], seed: int, sampling: Sampling, eos: Sequence[int]
) -> Iterator[int]:
    """
    The tokens that follow `prompt` (token ids), up to an end-of-sequence token, which is not one of them.

    The same tokens as the transformers engine's completion of the prompt with this seed, but for rounding.
    """
    noise = PromptNoise([seed])
    inputs, cache = torch.tensor([list(prompt)], device=model.device), inference_cache(model)
    for _ in range(sampling.max_new_tokens):
        output = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits, cache = output.logits[:, -1], output.past_key_values
        numbers = noise.step(logits.shape[-1]) if sampling.temperature else None
        chosen = draw(logits, numbers, sampling)
        token = int(chosen)
        if token in eos:
            return
        yield token
        inputs = chosen.unsqueeze(0)


def stream_text(tokenizer: Any, tokens: Iterable[int]) -> Iterator[str]:
    """The text of tokens in pieces, none of which ends within a character; together they are the text of all."""
    ids: list[int] = []
    shown = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if not text.endswith(UNFINISHED):
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(ids, skip_special_tokens=True)[len(shown) :]
