"""Calibration tokens: texts joined and cut into sequences of one length (docs/method.md 2)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

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


class Share(NamedTuple):
    """What one job calibrates on: its sequences, and where they lie among all of them."""

    tokens: Tensor
    """Token ids (n, length)."""
    stride: int
    """Every stride-th token of the whole calibration text counts, beginning with its first."""
    before: int
    """Tokens of the shards before this one."""


def share_of(tokens: Tensor, kept: int | None, shard: int = 0, shards: int = 1) -> Share:
    """Shard `shard` of `shards` of the sequences (n, length): a contiguous chunk, so that strides go on across shards.

    `kept` is about how many tokens of all shards together count (None: all). Raises InputError when there are more
    shards than sequences.
    """
    count, length = tokens.shape
    if shards > count:
        raise InputError(f"--num-shards: {shards} shards for {count} calibration sequences; accepted: at most {count}")
    stride = max(1, tokens.numel() // kept) if kept else 1
    first, last = shard * count // shards, (shard + 1) * count // shards
    return Share(tokens[first:last], stride, first * length)
