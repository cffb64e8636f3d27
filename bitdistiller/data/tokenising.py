"""Records of a mix as token sequences; generation and training encode prompts with the same function."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sequence:
    """
    One training sequence: prompt, completion and end of sequence.

    `completion_start` is the index of the first token of the completion, `completion_end` one past its last; an
    end-of-sequence token that the teacher itself wrote counts as the completion's, an appended one does not.
    """

    input_ids: list[int]
    completion_start: int
    completion_end: int


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a prompt with the tokenizer's own start tokens, never with an end-of-sequence token behind."""
    ids = tokenizer(text)["input_ids"]
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids


def encode_record(tokenizer: Any, record: dict[str, Any], max_length: int) -> Sequence:
    """A mix record as one sequence of at most `max_length` tokens; the teacher's own token ids are kept as they are."""
    prompt = encode_prompt(tokenizer, record["prompt"])
    completion = record.get("completion_ids")
    if completion is None:
        completion = tokenizer(record["completion"], add_special_tokens=False)["input_ids"]
    ids = (prompt + list(completion) + [tokenizer.eos_token_id])[:max_length]
    end = len(prompt) + len(completion) + (record.get("finish_reason", "eos") == "eos")
    return Sequence(ids, min(len(prompt), len(ids)), min(end, len(ids)))


def encode_records(tokenizer: Any, records: Iterable[dict[str, Any]], max_length: int) -> list[Sequence]:
    """`encode_record` for a whole mix."""
    return [encode_record(tokenizer, record, max_length) for record in records]


def vocabulary_digest(tokenizer: Any) -> str:
    """SHA-256 of the token-to-id table: two models can be teacher and student only if theirs are equal."""
    table = "\n".join(f"{index}\t{token}" for token, index in sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(table.encode()).hexdigest()
