"""Batched generation with transformers on whatever device the model is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from bitdistiller.data.tokenising import encode_prompt
from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Completion, Sampling
from bitdistiller.generation.sampling import SeededSampler


class TransformersEngine:
    """Left-padded static batches; a completion never depends on the other rows of its batch but for rounding."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.context = getattr(model.config, "max_position_embeddings", None) or 2**31
        self.eos = end_tokens(model, tokenizer)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos[0]
        self.model.generation_config = GenerationConfig()  # its penalties and limits would join ours

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, special tokens included."""
        return len(encode_prompt(self.tokenizer, prompt))

    @torch.inference_mode()
    def complete(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, at most to the end of the model's context; see Engine."""
        rows = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        room = [min(sampling.max_new_tokens, self.context - len(row)) for row in rows]
        if min(room) <= 0:
            raise InputError(f"a prompt of {max(map(len, rows))} tokens leaves no room in a context of {self.context}")
        input_ids, mask = self._left_pad(rows)
        sampler = SeededSampler(seeds, sampling.temperature, sampling.top_p)
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            generation_config=self._settings(max(room)),
            logits_processor=LogitsProcessorList([sampler]),
        )
        new = output[:, input_ids.shape[1] :].tolist()
        return [self._completion(len(row), ids, limit) for row, ids, limit in zip(rows, new, room, strict=True)]

    def _settings(self, max_new_tokens: int) -> GenerationConfig:
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=self.pad,
            eos_token_id=list(self.eos),
            use_cache=True,
        )

    def _left_pad(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, rows))
        ids = [[self.pad] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, device=self.model.device), torch.tensor(mask, device=self.model.device)

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
