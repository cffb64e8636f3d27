"""Shards: fixed batches, each durable before the next begins, whatever order they are met in."""

import pytest

from bitdistiller.data.prompts import Prompt
from bitdistiller.generation.engine import Completion, Sampling
from bitdistiller.generation.shards import batch_file, collect, complete_batches, plan_batches
from bitdistiller.stages.files import read_json_lines

PROMPTS = [Prompt(f"text-0-{n}", "text", "x" * (1 + n * 7 % 10), n) for n in range(12)]


class Letters:
    """An engine that says its seed; a character is a token. Dies at the batch with the seed `fatal`."""

    def __init__(self, fatal=None):
        self.fatal, self.calls = fatal, []

    def prompt_length(self, prompt):
        return len(prompt)

    def complete(self, prompts, seeds, sampling):
        if self.fatal in seeds:
            raise KeyboardInterrupt
        self.calls.append(list(prompts))
        return [
            Completion(f"<{seed}>", [seed], len(prompt), "eos") for prompt, seed in zip(prompts, seeds, strict=True)
        ]


def complete(engine, batches, work, before=lambda: None):
    return sum(complete_batches(engine, batches, Sampling(5), work, before))


def test_batches_are_sorted_by_length_and_cover_every_prompt_once():
    batches = plan_batches(Letters(), PROMPTS, 10, 5)
    assert [len(batch) for batch in batches] == [5, 5, 2]
    lengths = [len(prompt.text) for batch in batches for prompt in batch]
    assert lengths == sorted(lengths)
    assert sorted(prompt.seed for batch in batches for prompt in batch) == list(range(12))
    assert plan_batches(Letters(), PROMPTS[::-1], 10, 5) == batches


def test_longer_prompts_drop_out_whole():
    kept = [prompt for batch in plan_batches(Letters(), PROMPTS, 8, 5) for prompt in batch]
    assert {prompt.text for prompt in kept} == {prompt.text for prompt in PROMPTS if len(prompt.text) <= 8}
    assert len(kept) < len(PROMPTS)


def test_finished_batches_are_not_made_again(tmp_path):
    batches = plan_batches(Letters(), PROMPTS, 10, 3)
    fatal = batches[2][0].seed
    with pytest.raises(KeyboardInterrupt):
        complete(Letters(fatal), batches, tmp_path)
    assert [batch_file(tmp_path, i).exists() for i in range(4)] == [True, True, False, False]
    engine = Letters()
    assert complete(engine, batches, tmp_path) == 6
    assert engine.calls == [[prompt.text for prompt in batch] for batch in batches[2:]]


def test_records_come_in_the_order_of_the_prompts_whatever_the_batch_size(tmp_path):
    found = []
    for size in (1, 5, 12):
        work = tmp_path / str(size)
        batches = plan_batches(Letters(), PROMPTS, 9, size)
        complete(Letters(), batches, work)
        found.append(collect(work, batches, PROMPTS))
    assert found[0] == found[1] == found[2]
    assert [record["seed"] for record in found[0]] == [p.seed for p in PROMPTS if len(p.text) <= 9]
    assert found[0][0] == {
        "id": "text-0-0",
        "dataset": "text",
        "prompt": "x",
        "completion": "<0>",
        "completion_ids": [0],
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "finish_reason": "eos",
        "seed": 0,
    }


def test_the_check_comes_before_each_batch_and_loses_nothing(tmp_path):
    batches = plan_batches(Letters(), PROMPTS, 10, 4)
    left = [1, 1]
    with pytest.raises(IndexError):
        complete(Letters(), batches, tmp_path, left.pop)
    assert len(list(read_json_lines(batch_file(tmp_path, 1)))) == 4
    assert not batch_file(tmp_path, 2).exists()
