"""One prompt, and its seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """
    One prompt to complete; `seed` depends on the mix's seed, the dataset and the text alone.

    ids: its tokens, where it is no text to encode. greedy: tokens of the completion that are decoded greedily before
    sampling begins.
    """

    id: str
    dataset: str
    text: str
    seed: int
    ids: tuple[int, ...] = ()
    greedy: int = 0


def prompt_seed(mix_seed: int, dataset: str, text: str) -> int:
    """A 63-bit sampling seed that does not depend on shard, batch or order."""
    digest = hashlib.sha256(f"{mix_seed}\x1f{dataset}\x1f{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
