"""Calibration tokens: texts joined and cut into sequences of one length (docs/method.md 2)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bitdistiller.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def calibration_tokens(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    samples: int = 128,
    sequence_length: int = 1024,
    max_tokens_per_text: int | None = 512,
) -> Tensor:
    """The first `samples` usable texts as sequences of token ids, (n, sequence_length) int64.

    Texts that are empty or longer than `max_tokens_per_text` tokens (None: no limit) are skipped and do not count as
    samples. The others are tokenised with the tokenizer's own special tokens and concatenated; the rest that does not
    fill a sequence is dropped. Raises InputError when not even one sequence is filled.
    """
    encoded = (tokenizer(text.strip(), verbose=False)["input_ids"] for text in texts if text.strip())
    usable = (ids for ids in encoded if ids and (max_tokens_per_text is None or len(ids) <= max_tokens_per_text))
    ids = list(chain.from_iterable(islice(usable, samples)))
    count = len(ids) // sequence_length
    if not count:
        raise InputError(
            f"calibration: the texts give {len(ids)} tokens, less than one sequence of {sequence_length}; "
            "accepted: more or longer texts, a larger max_text_tokens, or a shorter block_length"
        )
    return torch.tensor(ids[: count * sequence_length]).view(count, sequence_length)


def token_stride(tokens: Tensor, kept: int | None) -> int:
    """Every how many tokens of (n, length) one counts, so that about `kept` do (None: all)."""
    return max(1, tokens.numel() // kept) if kept else 1


def shard_of(tokens: Tensor, shard: int, shards: int) -> tuple[Tensor, int]:
    """Shard `shard` of `shards` of the sequences (n, length), and how many tokens come before it.

    Shards are contiguous, so that a stride goes on across them. Raises InputError when there are more shards than
    sequences.
    """
    count, length = tokens.shape
    if shards > count:
        raise InputError(f"--num-shards: {shards} shards for {count} calibration sequences; accepted: at most {count}")
    first, last = shard * count // shards, (shard + 1) * count // shards
    return tokens[first:last], first * length
