"""Records of a mix as token sequences; generation and training encode prompts with the same function."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
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


def prompt_ids(tokenizer: Any, prompt: str | list[int]) -> list[int]:
    """Token ids of a prompt that is a text, or that is token ids already."""
    return encode_prompt(tokenizer, prompt) if isinstance(prompt, str) else list(prompt)


def start_tokens(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text of its own accord."""
    return [token for token in tokenizer("")["input_ids"] if token != tokenizer.eos_token_id]


def cut_blocks(sequences: Iterable[Sequence], length: int) -> Iterator[Sequence]:
    """All sequences one behind the other, in pieces of exactly `length` tokens, a rest left out; all count."""
    stream: list[int] = []
    for sequence in sequences:
        stream += sequence.input_ids
        while len(stream) >= length:
            yield Sequence(stream[:length], 0, length)
            del stream[:length]


def encode_record(tokenizer: Any, record: dict[str, Any], max_length: int) -> Sequence:
    """
    A mix record as one sequence of at most `max_length` tokens; the teacher's own token ids are kept as they are.

    So are those of a prompt that was none but them; start tokens come before.
    """
    given = record.get("prompt_ids")
    prompt = encode_prompt(tokenizer, record["prompt"]) if given is None else start_tokens(tokenizer) + given
    completion = record.get("completion_ids")
    if completion is None:
        completion = tokenizer(record["completion"], add_special_tokens=False)["input_ids"]
    ids = (prompt + list(completion) + [tokenizer.eos_token_id])[:max_length]
    end = len(prompt) + len(completion) + (record.get("finish_reason", "eos") == "eos")
    return Sequence(ids, min(len(prompt), len(ids)), min(end, len(ids)))


def encode_records(tokenizer: Any, records: Iterable[dict[str, Any]], max_length: int) -> list[Sequence]:
    """`encode_record` for a whole mix."""
    return [encode_record(tokenizer, record, max_length) for record in records]


def vocabulary_size(tokenizer: Any) -> int:
    """Token ids that there are, from 0; some of them may stand for nothing."""
    return max(tokenizer.get_vocab().values()) + 1


def vocabulary_digest(tokenizer: Any) -> str:
    """SHA-256 of the token-to-id table: two models can be teacher and student only if theirs are equal."""
    table = "\n".join(f"{index}\t{token}" for token, index in sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(table.encode()).hexdigest()
