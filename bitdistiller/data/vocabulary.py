"""Prompts without data (LLM-QAT, arXiv 2305.17888, section 3.1): every token of the vocabulary starts a few texts."""

from __future__ import annotations

import random
from typing import Any

from bitdistiller.config import PromptSource
from bitdistiller.data.prompt import Prompt, prompt_seed
from bitdistiller.data.tokenising import vocabulary_size
from bitdistiller.errors import InputError

NAME = "vocabulary"


def whole_count(source: PromptSource, size: int) -> int:
    """Prompts of a source that takes all of a vocabulary of `size` tokens."""
    return size * len(source.prefixes)


def vocabulary_prompts(source: PromptSource, index: int, mix_seed: int, tokenizer: Any) -> list[Prompt]:
    """
    One prompt for every token and every prefix length; `source.prompt_count` of them by the seed, where it is given.

    Prompt `n` is token `n % size` with prefix `n // size`: the token alone, then greedy tokens up to the prefix's
    length. Raises InputError where fewer are there than wanted.
    """
    size, wanted = vocabulary_size(tokenizer), source.prompt_count
    numbers = list(range(whole_count(source, size)))
    if wanted is not None:
        if wanted > len(numbers):
            raise InputError(
                f"dataset {NAME}: {size} tokens with {len(source.prefixes)} prefixes make {len(numbers)} prompts, "
                f"{wanted} are needed; lower samples or prompts"
            )
        numbers = sorted(random.Random(f"{mix_seed}/{NAME}").sample(numbers, wanted))
    return [_prompt(n, n % size, source.prefixes[n // size], index, mix_seed, tokenizer) for n in numbers]


def _prompt(n: int, token: int, prefix: int, index: int, mix_seed: int, tokenizer: Any) -> Prompt:
    seed = prompt_seed(mix_seed, NAME, f"{token} {prefix}")
    return Prompt(f"{NAME}-{index}-{n}", NAME, tokenizer.decode([token]), seed, (token,), prefix - 1)
