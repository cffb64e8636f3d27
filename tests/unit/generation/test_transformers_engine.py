"""Batched completions equal naive ones, prompt by prompt, token by token."""

import pytest
import torch
from helpers.tiny import CONTEXT, SENTENCES, make_model, make_tokenizer
from reference.generation import complete as naive_complete

from bitdistiller.data.tokenising import encode_prompt
from bitdistiller.errors import InputError
from bitdistiller.generation import Sampling, TransformersEngine
from bitdistiller.generation.transformers_engine import end_tokens

PROMPTS = [sentence[:length] for length in (3, 9, 15, 30) for sentence in SENTENCES]
SEEDS = [seed * 7919 for seed in range(len(PROMPTS))]
END = 2


@pytest.fixture(scope="module")
def engine():
    return TransformersEngine(make_model(), make_tokenizer())


@pytest.fixture(scope="module")
def completions(engine):
    return engine.complete(PROMPTS, SEEDS, Sampling(24, temperature=0.7))


def test_a_batch_equals_naive_generation(engine, completions):
    for prompt, seed, completion in zip(PROMPTS, SEEDS, completions, strict=True):
        ids = encode_prompt(engine.tokenizer, prompt)
        limit = min(24, CONTEXT - len(ids))
        expected = naive_complete(engine.model, ids, seed, limit, 0.7, {END})
        assert (completion.token_ids, completion.finish_reason) == expected
        assert completion.prompt_tokens == len(ids)
        assert completion.text == engine.tokenizer.decode(completion.token_ids, skip_special_tokens=True)


def test_both_finish_reasons_occur(completions):
    reasons = {completion.finish_reason for completion in completions}
    assert reasons == {"eos", "length"}
    assert all(END not in completion.token_ids for completion in completions)
    assert all(len(c.token_ids) <= 24 for c in completions)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_independent_of_the_batch_size(engine, completions, size):
    sampling = Sampling(24, temperature=0.7)
    parts = [
        engine.complete(PROMPTS[start : start + size], SEEDS[start : start + size], sampling)
        for start in range(0, len(PROMPTS), size)
    ]
    assert [completion for part in parts for completion in part] == completions
    few_at_once = TransformersEngine(engine.model, engine.tokenizer, batch_size=size)
    assert few_at_once.complete(PROMPTS, SEEDS, sampling) == completions


def test_greedy(engine):
    found = engine.complete(PROMPTS[:6], SEEDS[:6], Sampling(10))
    assert found == engine.complete(PROMPTS[:6], SEEDS[6:12], Sampling(10))
    for prompt, completion in zip(PROMPTS, found, strict=False):
        ids = encode_prompt(engine.tokenizer, prompt)
        assert completion.token_ids == naive_complete(engine.model, ids, 0, 10, 0.0, {END})[0]


def test_a_completion_ends_with_the_context(engine):
    prompt = "x" * (CONTEXT - 6)
    tokens = engine.prompt_length(prompt)
    assert tokens == CONTEXT - 5
    long, short = engine.complete([prompt, "The"], [1, 2], Sampling(20))
    assert len(long.token_ids) == 5
    assert long.finish_reason == "length"
    assert short.token_ids == engine.complete(["The"], [2], Sampling(20))[0].token_ids


def test_a_prompt_that_fills_the_context_is_never_cut(engine):
    with pytest.raises(InputError, match=f"a prompt of {CONTEXT} tokens leaves no room in a context of {CONTEXT}"):
        engine.complete(["x" * (CONTEXT - 1)], [1], Sampling(4))


def test_the_split_is_by_token_position_not_by_text():
    """A completion that repeats its prompt, and a prompt whose text decoding changes, are split right."""
    tokenizer = make_tokenizer()
    wanted = encode_prompt(tokenizer, "cat cat")[1:]

    class Parrot(torch.nn.Module):
        """Says its prompt again, then ends."""

        def __init__(self):
            super().__init__()
            self.config = make_model().config
            self.device = torch.device("cpu")
            self.generation_config = None

        def generate(self, input_ids, **_):
            rows = [[*row, *wanted, END] for row in input_ids.tolist()]
            return torch.tensor(rows)

    completion = TransformersEngine(Parrot(), tokenizer).complete(["cat cat"], [0], Sampling(9))[0]
    assert completion.text == "cat cat"
    assert completion.token_ids == wanted
    assert completion.finish_reason == "eos"


def test_the_models_own_generation_settings_do_not_change_the_distribution(completions):
    model = make_model()
    settings = model.generation_config
    settings.repetition_penalty, settings.no_repeat_ngram_size, settings.min_new_tokens = 5.0, 2, 20
    settings.bad_words_ids, settings.do_sample, settings.top_k, settings.temperature = [[5]], True, 2, 0.1
    engine = TransformersEngine(model, make_tokenizer())
    assert engine.complete(PROMPTS, SEEDS, Sampling(24, temperature=0.7)) == completions


def test_every_end_token_of_the_model_ends():
    model, tokenizer = make_model(), make_tokenizer()
    model.generation_config.eos_token_id = [7, END, 9]
    assert end_tokens(model, tokenizer) == (END, 7, 9)
    model.generation_config.eos_token_id = 11
    assert end_tokens(model, tokenizer) == (END, 11)
    engine = TransformersEngine(model, tokenizer)
    found = engine.complete(PROMPTS, SEEDS, Sampling(24, temperature=0.7))
    assert all(not {END, 11} & set(completion.token_ids) for completion in found)
    for prompt, seed, completion in zip(PROMPTS, SEEDS, found, strict=True):
        ids = encode_prompt(tokenizer, prompt)
        limit = min(24, CONTEXT - len(ids))
        assert completion.token_ids == naive_complete(model, ids, seed, limit, 0.7, {END, 11})[0]
    tokenizer.eos_token = None
    model.generation_config.eos_token_id = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        TransformersEngine(model, tokenizer)


def test_a_tokenizer_without_padding_token(completions):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    engine = TransformersEngine(make_model(), tokenizer)
    assert engine.complete(PROMPTS, SEEDS, Sampling(24, temperature=0.7)) == completions
