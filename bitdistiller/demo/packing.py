"""Training rows of the demo teacher: problems side by side, stories in one stream."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

BLANK_LINE = "\n\n"
OPEN_ROWS = 64


@dataclass(frozen=True)
class Problem:
    """A document's token ids, start and end tokens included; the first `prompt` of them are the prompt."""

    ids: list[int]
    prompt: int


@dataclass(frozen=True)
class Rows:
    """Packed training data: `ids` (rows, context) int64; `weights` (rows, context) float32, of each id as a target."""

    ids: torch.Tensor
    weights: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def join(self, other: "Rows") -> "Rows":
        """These rows, then the other ones."""
        return Rows(torch.cat([self.ids, other.ids]), torch.cat([self.weights, other.weights]))


def encode_problem(tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str) -> Problem:
    """Start token, prompt, completion, end token; prompt and completion are encoded apart, as at generation."""
    start = tokenizer(prompt)["input_ids"]
    answer = tokenizer(completion, add_special_tokens=False)["input_ids"]
    return Problem([*start, *answer, tokenizer.eos_token_id], len(start))


def pack_problems(problems: Sequence[Problem], context: int, pad: int, prompt_weight: float) -> Rows:
    """
    Whole problems side by side, first fit in the given order, rows filled up with `pad` at weight 0.

    Tokens of prompts weigh `prompt_weight`, those of completions 1. A problem longer than `context` is left out.
    """
    ids, weights, oldest = [], [], 0
    for problem in (problem for problem in problems if len(problem.ids) <= context):
        fitting = (i for i in range(oldest, len(ids)) if len(ids[i]) + len(problem.ids) <= context)
        index = next(fitting, len(ids))
        if index == len(ids):
            ids.append([])
            weights.append([])
            oldest = max(0, len(ids) - OPEN_ROWS)
        ids[index] += problem.ids
        weights[index] += [prompt_weight] * problem.prompt + [1.0] * (len(problem.ids) - problem.prompt)
    return Rows(torch.tensor(_filled(ids, context, pad)), torch.tensor(_filled(weights, context, 0.0)))


def _filled(rows: list[list], context: int, value: float) -> list[list]:
    return [row + [value] * (context - len(row)) for row in rows]


def pack_stories(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, context: int, seed: int) -> Rows:
    """
    Stories one after another, cut every `context` tokens, every token of weight 1; the rest is left out.

    Half of the joints (by `seed`) are the end token and a new start, half a blank line as in the text that perplexity
    is measured on, so that the model knows both.
    """
    rng = random.Random(seed)
    blank = tokenizer(BLANK_LINE, add_special_tokens=False)["input_ids"]
    joints = ([tokenizer.eos_token_id, tokenizer.bos_token_id], blank)
    stream = [tokenizer.bos_token_id]
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        stream += ids + rng.choice(joints)
    ids = torch.tensor(stream[: len(stream) // context * context]).view(-1, context)
    return Rows(ids, torch.ones(ids.shape))
