"""Continuous batching writes what naive generation writes, whoever shares the batch, and nothing runs for nothing."""

import gc
import random
import weakref

import pytest
import torch
from helpers.architectures import build
from helpers.tiny import CONTEXT, make_model, make_tokenizer
from reference.generation import complete as naive_complete
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from bitdistiller.generation import Sampling, TransformersEngine, continuous, static
from bitdistiller.generation.slots import Slots, fits

END = (2,)
SHORT = {"vocab_size": 80, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture(scope="module")
def model():
    return make_model()


def random_prompts(lengths, vocabulary=80, seed=5):
    """Prompts of the given lengths, their end token included at times, with seeds of their own."""
    choice = random.Random(seed)
    prompts = [[choice.randrange(1, vocabulary) for _ in range(length)] for length in lengths]
    return prompts, [choice.randrange(2**62) for _ in lengths]


def naive(model, prompts, limits, seeds, temperature, end=END):
    """The new tokens, the one that ended them included, prompt by prompt."""
    found = []
    for prompt, limit, seed in zip(prompts, limits, seeds, strict=True):
        ids, reason = naive_complete(model, prompt, seed, limit, temperature, set(end))
        found.append((ids, reason == "eos"))
    return found


def cut(new, end=END):
    """What `naive` says, from what `decode` returns."""
    return [(ids[:-1], True) if ids and ids[-1] in end else (ids, False) for ids in new]


def both(model, prompts, limits, seeds, temperature, rows, decode=continuous.decode):
    """Whether continuous and naive tokens are the same."""
    new = decode(model, prompts, limits, seeds, Sampling(max(limits), temperature), END, rows)
    return cut(new) == naive(model, prompts, limits, seeds, temperature)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("rows", [1, 2, 5, 64])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_prompts_of_very_different_lengths(model, attention, rows, temperature):
    prompts, seeds = random_prompts([30, 1, 2, 50, 7, 1, 44, 3, 3, 21, 12, 2, 62, 5], vocabulary=128)
    limits = [min(12, CONTEXT - len(prompt)) for prompt in prompts]
    model.set_attn_implementation(attention)
    assert both(model, prompts, limits, seeds, temperature, rows)


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_prompts_of_equal_length(model, rows):
    prompts, seeds = random_prompts([6] * 9, vocabulary=128)
    assert both(model, prompts, [15] * 9, seeds, 0.7, rows)


def test_one_new_token_and_one_prompt_token(model):
    prompts, seeds = random_prompts([1] * 7, vocabulary=128)
    new = continuous.decode(model, prompts, [1] * 7, seeds, Sampling(1), END, 3)
    assert all(len(ids) == 1 for ids in new)
    assert both(model, prompts, [1] * 7, seeds, 0.0, 3)


def test_no_prompts(model):
    assert continuous.decode(model, [], [], [], Sampling(4), END, 8) == []
    assert static.decode(model, [], [], [], Sampling(4), END, 8) == []
    assert TransformersEngine(make_model(), make_tokenizer()).complete([], [], Sampling(4)) == []


def test_an_end_token_in_the_prompt_ends_nothing(model):
    prompts, seeds = [[1, 2, 2], [2], [9, 2, 11, 2]], [1, 2, 3]
    assert both(model, prompts, [10] * 3, seeds, 0.0, 2)
    assert both(model, prompts, [10] * 3, seeds, 0.9, 2)


@pytest.mark.parametrize("rows", [2, 8])
def test_looking_every_few_tokens_changes_nothing(model, rows, monkeypatch):
    """As on a GPU, where sequences run on behind their ends until the next look."""
    prompts, seeds = random_prompts([CONTEXT - 3, 4, 9, 30, 1, CONTEXT - 1, 17, 8], vocabulary=128)
    limits = [min(13, CONTEXT - len(prompt)) for prompt in prompts]
    expected = continuous.decode(model, prompts, limits, seeds, Sampling(13, 0.9), END, rows)
    steps = []
    step = continuous.Schedule._step
    monkeypatch.setattr(continuous.Schedule, "_step", lambda self, used: steps.append(used) or step(self, used))
    monkeypatch.setattr(continuous, "steps_between_looks", lambda device: 4)
    assert continuous.decode(model, prompts, limits, seeds, Sampling(13, 0.9), END, rows) == expected
    assert max(steps) <= CONTEXT
    assert len(steps) % 4 == 0


def test_several_end_tokens(model):
    prompts, seeds = random_prompts([3, 8, 8, 20], vocabulary=128)
    end = (2, 11, 40, 97)
    new = continuous.decode(model, prompts, [30] * 4, seeds, Sampling(30, 0.9), end, 2)
    assert cut(new, end) == naive(model, prompts, [30] * 4, seeds, 0.9, end)


def test_the_same_call_gives_the_same_bits(model):
    prompts, seeds = random_prompts([9, 3, 40, 22, 5, 5], vocabulary=128)
    seen = []
    for _ in range(2):
        logits = []
        handle = model.lm_head.register_forward_hook(lambda *args, kept=logits: kept.append(args[2].clone()))
        continuous.decode(model, prompts, [9] * 6, seeds, Sampling(9, 0.9), END, 3)
        handle.remove()
        seen.append(logits)
    assert len(seen[0]) == len(seen[1])
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_rows_are_filled_and_shrink(model, monkeypatch):
    """No step has a row for a sequence that has ended, and waiting prompts enter while others run."""
    prompts, seeds = random_prompts([5] * 20, vocabulary=128)
    limits = [1 + 5 * (n % 4) for n in range(20)]
    sizes = []
    step = continuous.Schedule._step
    monkeypatch.setattr(
        continuous.Schedule, "_step", lambda self, used: sizes.append(len(self.running)) or step(self, used)
    )
    new = continuous.decode(model, prompts, limits, seeds, Sampling(16), (-1,), 8)
    assert [len(ids) for ids in new] == limits
    assert sum(sizes) == sum(limits)
    assert max(sizes) == 8
    assert sizes[-1] < 8
    in_static_batches = 8 * 16 * 2 + 4 * 16
    assert len(sizes) < in_static_batches / 8


def test_buffers_have_one_size_whatever_the_number_of_prompts(model, monkeypatch):
    made = []
    monkeypatch.setattr(continuous, "Slots", lambda *args: made.append(Slots(*args)) or made[-1])
    for count in (8, 80):
        prompts, seeds = random_prompts([10] * count, vocabulary=128)
        continuous.decode(model, prompts, [6] * count, seeds, Sampling(6), END, 4)
    heads, dimension = model.config.num_key_value_heads, model.config.head_dim
    for slots in made:
        assert {tuple(layer.keys.shape) for layer in slots.layers} == {(4, heads, 16, dimension)}


def test_buffers_are_free_at_the_end(model, monkeypatch):
    """Without waiting for the collector of cycles: two groups' buffers never stand side by side."""
    made = []
    monkeypatch.setattr(continuous, "Slots", lambda *args: made.append(weakref.ref(slots := Slots(*args))) or slots)
    prompts, seeds = random_prompts([10] * 6, vocabulary=128)
    gc.disable()
    try:
        continuous.decode(model, prompts, [6] * 6, seeds, Sampling(6, 0.7), END, 4)
        assert made[0]() is None
    finally:
        gc.enable()


def test_bfloat16_greedy_tokens_are_those_of_generate():
    model = make_model().bfloat16()
    prompts, seeds = random_prompts([4, 30, 11, 11, 2], vocabulary=128)
    arguments = (model, prompts, [12] * 5, seeds, Sampling(12), END, 3)
    expected = [ids[:limit] for ids, limit in zip(static.decode(*arguments), [12] * 5, strict=True)]
    found = continuous.decode(*arguments)
    equal = sum(one == other[: len(one)] for one, other in zip(found, expected, strict=True))
    assert equal >= 4


def learned_positions():
    """GPT-2: a table of positions, heads of their own for keys."""
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
    torch.manual_seed(3)
    return GPT2LMHeadModel(GPT2Config(**shape, **SHORT)).eval()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_architectures_that_fit(name):
    model = learned_positions() if name == "gpt2" else build(name)
    assert fits(model)
    prompts, seeds = random_prompts([20, 3, 1, 9, 50])
    limits = [min(14, CONTEXT - len(prompt)) for prompt in prompts]
    for temperature in (0.0, 1.0):
        assert both(model, prompts, limits, seeds, temperature, 3)


def alibi():
    """Falcon with ALiBi, which reads positions off a two-dimensional mask."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "new_decoder_architecture": False}
    torch.manual_seed(3)
    return FalconForCausalLM(FalconConfig(**shape, alibi=True, **SHORT)).eval()


def state_space():
    """Mamba: no keys and values at all."""
    torch.manual_seed(3)
    shape = {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2}
    return MambaForCausalLM(MambaConfig(**shape, **SHORT)).eval()


OTHERS = {"window": lambda: build("mistral"), "mixed": lambda: build("qwen2"), "alibi": alibi, "ssm": state_space}


@pytest.mark.parametrize("name", OTHERS)
def test_other_caches_take_static_batches_by_themselves(name):
    model = OTHERS[name]()
    assert not fits(model)
    assert TransformersEngine(model, make_tokenizer()).decode is static.decode
    prompts, seeds = random_prompts([20, 3, 1, 9, 40])
    for temperature in (0.0, 0.9):
        new = static.decode(model, prompts, [14] * 5, seeds, Sampling(14, temperature), END, 2)
        until_end = [ids[: ids.index(2) + 1] if 2 in ids else ids for ids in new]
        assert cut(until_end) == naive(model, prompts, [14] * 5, seeds, temperature)
