"""The prompts of a mix: chosen with a seed, counted, numbered, and dealt to shards."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from typing import Any

from bitdistiller.config import Mix, PromptSource
from bitdistiller.data.prompt import Prompt, prompt_seed
from bitdistiller.data.rows import Row, rows_of
from bitdistiller.data.templates import DATASETS
from bitdistiller.data.vocabulary import NAME, vocabulary_prompts
from bitdistiller.errors import InputError


def source_prompts(source: PromptSource, index: int, mix_seed: int, tokenizer: Any) -> list[Prompt]:
    """
    The `source.prompt_count` distinct prompts of one source, in an order that the seed fixes.

    Raises InputError when the dataset has too few rows that fit its rule.
    """
    assert source.prompt_count is not None
    rule = DATASETS[source.dataset]
    rows = rows_of(source.dataset, source.path, rule.hub, rule.name, rule.split)
    rows = itertools.islice(rows, source.skip_rows, rule.first_rows)
    texts = (rule.prompt(row) for row in rows) if rule.prompt else _starts(source, rows, tokenizer)
    found = list(dict.fromkeys(text for text in texts if text and text.strip()))
    if len(found) < source.prompt_count:
        place = source.path or rule.hub
        raise InputError(
            f"dataset {source.dataset} ({place}): {len(found)} prompts fit the rule, {source.prompt_count} are needed; "
            "lower samples or prompts"
        )
    random.Random(f"{mix_seed}/{source.dataset}").shuffle(found)
    chosen = found[: source.prompt_count]
    name = source.dataset
    return [
        Prompt(f"{name}-{index}-{n}", name, text, prompt_seed(mix_seed, name, text)) for n, text in enumerate(chosen)
    ]


def _starts(source: PromptSource, rows: Iterable[Row], tokenizer: Any) -> Iterable[str]:
    for row in rows:
        text = str(row.get("text") or "")
        if len(text) <= source.minimum_characters:
            continue
        if source.prompt_tokens is None:
            yield text[: source.prompt_characters]
        else:
            yield _first_tokens(text, source.prompt_tokens, tokenizer)


def _first_tokens(text: str, count: int, tokenizer: Any) -> str:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = encoded["offset_mapping"]
    return text[: spans[:count][-1][1]] if spans else ""


def mix_prompts(mix: Mix, tokenizer: Any) -> list[Prompt]:
    """All prompts of a mix, source after source."""
    return [p for i, source in enumerate(mix.sources) for p in _prompts_of(source, i, mix.seed, tokenizer)]


def _prompts_of(source: PromptSource, index: int, mix_seed: int, tokenizer: Any) -> list[Prompt]:
    make = vocabulary_prompts if source.dataset == NAME else source_prompts
    return make(source, index, mix_seed, tokenizer)


def shard_prompts(prompts: list[Prompt], shard: int, shards: int) -> list[Prompt]:
    """Every `shards`-th prompt from `shard`: each shard gets its part of every source."""
    if not 0 <= shard < shards:
        raise InputError(f"--shard {shard}: must be from 0 to {shards - 1}")
    return prompts[shard::shards]
