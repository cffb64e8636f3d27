"""What every generation engine does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Sampling:
    """How to continue a prompt; temperature 0 is greedy decoding."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    """Draw among this many most likely tokens; None: among all."""


@dataclass(frozen=True)
class Completion:
    """What followed a prompt, split from it by token position; `token_ids` end before the end-of-sequence token."""

    text: str
    token_ids: list[int]
    prompt_tokens: int
    finish_reason: Literal["eos", "length"]


@dataclass(frozen=True)
class Wanted:
    """
    What an engine is to load: a full-precision model directory and its precision (float32 or bfloat16).

    longest: tokens of the longest sequence, prompt and completion together; None: the model's context, or what memory
    holds of it. tensor_parallel: GPUs that share a copy of the model; None: the fewest that hold it. batch_size:
    sequences that transformers decodes at once; vLLM decides for itself.
    """

    model: Path
    dtype: str
    longest: int | None = None
    tensor_parallel: int | None = None
    batch_size: int = 32


class Engine(Protocol):
    """Completes one batch of prompts."""

    tokenizer: Any
    context: int
    """Longest sequence in tokens."""

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, special tokens included."""
        ...

    def complete(
        self, prompts: Sequence[str | list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """
        One completion per prompt, a text or token ids, in order; `seeds[i]` alone fixes the randomness of `prompts[i]`.
        """
        ...
