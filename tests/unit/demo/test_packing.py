"""Rows of the demo teacher: whole problems, weighted prompts, an unbroken stream of stories."""

from __future__ import annotations

import torch

from bitdistiller.demo.corpus import documents
from bitdistiller.demo.packing import Problem, encode_problem, pack_problems, pack_stories
from bitdistiller.demo.tokenizer import train_tokenizer


def test_problems_stay_whole_and_their_weights_follow_them() -> None:
    problems = [Problem([n] * length, prompt) for n, (length, prompt) in enumerate([(5, 2), (4, 1), (3, 3), (9, 1)], 1)]
    rows = pack_problems(problems, context=8, pad=0, prompt_weight=0.25)
    assert rows.ids.tolist() == [[1, 1, 1, 1, 1, 3, 3, 3], [2, 2, 2, 2, 0, 0, 0, 0]]
    assert rows.weights.tolist() == [
        [0.25, 0.25, 1, 1, 1, 0.25, 0.25, 0.25],
        [0.25, 1, 1, 1, 0, 0, 0, 0],
    ]


def test_a_problem_is_framed_and_knows_its_prompt() -> None:
    item = documents("demo-math", "train", count=1)[0]
    tokenizer = train_tokenizer([item["prompt"]], 300, 128)
    problem = encode_problem(tokenizer, item["prompt"], item["completion"])
    assert problem.ids[0] == tokenizer.bos_token_id
    assert problem.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(problem.ids[problem.prompt : -1]) == item["completion"]


def test_stories_join_by_both_kinds_of_joint_and_nothing_is_lost_between() -> None:
    texts = [item["text"] for item in documents("demo-text", "train", count=40)]
    tokenizer = train_tokenizer(texts, 512, 128)
    rows = pack_stories(texts, tokenizer, context=64, seed=1)
    text = tokenizer.decode(rows.ids.flatten().tolist(), skip_special_tokens=False)
    plain = text.replace(tokenizer.eos_token + tokenizer.bos_token, "|").replace("\n\n", "|")
    assert plain.removeprefix(tokenizer.bos_token)[:5000] == "|".join(texts)[:5000]
    assert 5 < text.count(tokenizer.eos_token) < 35
    assert torch.equal(rows.weights, torch.ones(rows.ids.shape))
