"""Generation with transformers on whatever device the model is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import GenerationConfig

from bitdistiller.data.tokenising import encode_prompt, prompt_ids
from bitdistiller.errors import InputError
from bitdistiller.generation import continuous, static
from bitdistiller.generation.engine import Completion, Sampling
from bitdistiller.generation.slots import fits


class TransformersEngine:
    """
    Continuous batching of `batch_size` sequences, static batches for models that it does not fit (`slots.fits`).

    A completion never depends on the other prompts but for rounding, which is the same for the same call.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 32) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.context = getattr(model.config, "max_position_embeddings", None) or 2**31
        self.eos = end_tokens(model, tokenizer)
        self.model.generation_config = GenerationConfig()  # its penalties and limits would join ours
        self.decode = continuous.decode if fits(model) else static.decode

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, special tokens included."""
        return len(encode_prompt(self.tokenizer, prompt))

    def complete(
        self, prompts: Sequence[str | list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """One completion per prompt, at most to the end of the model's context; see Engine."""
        rows = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        room = [min(sampling.max_new_tokens, self.context - len(row)) for row in rows]
        if min(room, default=1) <= 0:
            raise InputError(f"a prompt of {max(map(len, rows))} tokens leaves no room in a context of {self.context}")
        new = self.decode(self.model, rows, room, seeds, sampling, self.eos, self.batch_size)
        return [self._completion(len(row), ids, limit) for row, ids, limit in zip(rows, new, room, strict=True)]

    def _completion(self, prompt_tokens: int, ids: list[int], limit: int) -> Completion:
        end = next((index for index, token in enumerate(ids[:limit]) if token in self.eos), None)
        kept = ids[:limit] if end is None else ids[:end]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Completion(text, kept, prompt_tokens, "length" if end is None else "eos")


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """End-of-sequence ids of the tokenizer and of the model's generation config, without repeats."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    configured = configured if isinstance(configured, list) else [configured]
    found = tuple(dict.fromkeys(i for i in (tokenizer.eos_token_id, *configured) if i is not None))
    if not found:
        raise InputError("the tokenizer has no end-of-sequence token, so no completion could ever stop")
    return found
