"""The KV cache in integers: what it holds, and that a model answers as with a cache of dense values."""

import pytest
import torch
from reference.onebit import symmetric, symmetric_integers
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma3TextConfig,
    GlmConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from bitdistiller.config import MixedBits
from bitdistiller.errors import InputError
from bitdistiller.generation import Sampling
from bitdistiller.generation.integer_cache import IntegerCache, cache_bytes, inference_cache
from bitdistiller.generation.stream import stream_tokens
from bitdistiller.generation.token_rows import TokenCodes
from bitdistiller.layers import mix_linears

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WIDTH = 2 * 16


def make(config=LlamaConfig, bits=(32, 8, 4), dtype=torch.float32, **changes):
    """A random model of MixedLinear layers; `bits` None leaves it as it is."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SHAPE | changes), dtype=dtype).eval()
    if bits is not None:
        mix_linears(model, MixedBits(*bits))
    return model


@torch.inference_mode()
def logits(model, cache, tokens, parts=((0, 7), (7, 8), (8, 12), (12, 20)), mask=None):
    """Logits of `tokens` given in parts, the first as a prompt."""
    answers = []
    for begin, end in parts:
        seen = None if mask is None else mask[:, :end]
        positions = None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)[:, begin:end]
        given = {"attention_mask": seen, "position_ids": positions, "past_key_values": cache}
        answers.append(model(input_ids=tokens[:, begin:end], **given).logits)
    return torch.cat(answers, dim=1)


def tokens(count=2):
    return torch.randint(64, (count, 20), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 9, 16])
def test_it_holds_the_integers_of_the_formula(bits):
    output = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(bits))
    held = TokenCodes(bits)
    held.append(output[:, :3])
    held.append(output[:, 3:])
    assert held.length == 5
    expected = torch.tensor([symmetric(row, bits) for row in output.flatten(0, 1).tolist()]).view(2, 5, 12)
    torch.testing.assert_close(held.values(), expected, rtol=1e-6, atol=1e-7)
    if bits > 8:
        integers = [symmetric_integers(row, bits) for row in output.flatten(0, 1).tolist()]
        assert held.tensors[0].flatten(0, 1).tolist() == integers
    each = 12 * bits // 8 + (12 * bits % 8 > 0) if bits <= 8 else 24
    assert held.nbytes == 2 * 5 * (each + 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [2, 4, 5, 8, 16])
def test_logits_are_those_of_a_dense_cache(bits, dtype):
    model = make(bits=(32, 8, bits), dtype=dtype)
    dense, integers = DynamicCache(config=model.config), IntegerCache(model)
    assert torch.equal(logits(model, dense, tokens()), logits(model, integers, tokens()))
    assert integers.get_seq_length() == 20
    code_bytes = WIDTH * bits // 8
    size = 2 * 2 * 2 * 20 * (code_bytes + 4) + 2 * 20 * 16 * dtype.itemsize  # layers, K and V, batch; cos and sin
    assert cache_bytes(integers) == integers.nbytes == size
    assert cache_bytes(dense) == 2 * 2 * 2 * 20 * WIDTH * dtype.itemsize


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (Qwen2Config, {}),  # biases
        (Qwen3Config, {}),  # a norm of every head
        (MistralConfig, {"sliding_window": None}),
        (PhiConfig, {}),  # half of each head is rotated
        (GlmConfig, {}),  # pairs of neighbours are rotated
        (Gemma3TextConfig, {"layer_types": ["full_attention"] * 2}),
        (LlamaConfig, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    ],
)
def test_other_attentions(config, changes):
    model = make(config, **changes)
    cache = inference_cache(model)
    assert isinstance(cache, IntegerCache)
    assert torch.equal(logits(model, DynamicCache(config=model.config), tokens()), logits(model, cache, tokens()))


def test_padding_on_the_left():
    model = make()
    mask = torch.ones(2, 20, dtype=torch.int64)
    mask[0, :4] = 0
    dense = logits(model, DynamicCache(config=model.config), tokens(), mask=mask)
    assert torch.equal(dense, logits(model, IntegerCache(model), tokens(), mask=mask))


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_generate(options):
    model = make()
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    given = {"attention_mask": mask, "max_new_tokens": 12, "min_new_tokens": 12, **options}
    answers = []
    for cache in (DynamicCache(config=model.config), IntegerCache(model)):
        torch.manual_seed(1)
        answers.append(model.generate(tokens()[:, :5], past_key_values=cache, **given))
    assert torch.equal(*answers)


def test_what_is_cropped_is_forgotten():
    model = make()
    cache = IntegerCache(model)
    logits(model, cache, tokens(), parts=((0, 9),))
    cache.crop(-4)
    assert cache.get_seq_length() == 5
    rest = logits(model, cache, tokens(), parts=((5, 20),))
    assert torch.equal(rest, logits(model, DynamicCache(config=model.config), tokens(), parts=((0, 5), (5, 20)))[:, 5:])
    cache.reset()
    assert cache.get_seq_length() == cache.nbytes == 0
    assert logits(model, cache, tokens(1), parts=((0, 3),)).shape == (1, 3, 64)


def test_rows_are_chosen_and_repeated():
    model = make()
    mask = torch.ones(2, 20, dtype=torch.int64)
    mask[1, :3] = 0
    answers = []
    for cache in (DynamicCache(config=model.config), IntegerCache(model)):
        logits(model, cache, tokens(), parts=((0, 9),), mask=mask)
        cache.batch_select_indices(torch.tensor([1, 0]))
        cache.batch_repeat_interleave(2)
        order = torch.tensor([1, 1, 0, 0])
        answers.append(logits(model, cache, tokens()[order], parts=((9, 20),), mask=mask[order]))
    assert torch.equal(*answers)


def test_two_caches_of_one_model_do_not_mix():
    """And a pass without cache, or with a dense one, leaves nothing in either."""
    model = make()
    one, other = IntegerCache(model), IntegerCache(model)
    first = logits(model, one, tokens(1), parts=((0, 6),))
    logits(model, other, 63 - tokens(1), parts=((0, 9),))
    with torch.inference_mode():
        model(tokens(2), use_cache=False)
        model(tokens(2))
    second = logits(model, one, tokens(1), parts=((6, 20),))
    dense = logits(model, DynamicCache(config=model.config), tokens(1), parts=((0, 6), (6, 20)))
    assert torch.equal(torch.cat([first, second], dim=1), dense)
    assert (one.get_seq_length(), other.get_seq_length()) == (20, 9)
    assert all(getattr(module, "keep", None) is None for module in model.modules())


def test_a_stream_of_tokens_uses_it(monkeypatch):
    model = make()
    used = []
    update = IntegerCache.update
    monkeypatch.setattr(IntegerCache, "update", lambda *args, **kwargs: used.append(1) or update(*args, **kwargs))
    found = list(stream_tokens(model, [3, 4, 5], 7, Sampling(10, 0.0, 1.0), []))
    assert used
    expected = model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=10, min_new_tokens=10, do_sample=False)
    assert found == expected[0, 3:].tolist()


@pytest.mark.parametrize(
    ("config", "bits", "changes", "message"),
    [
        (LlamaConfig, None, {}, "its KV cache is not quantised"),
        (LlamaConfig, (4, 8, 32), {}, "its KV cache is not quantised"),
        (MistralConfig, (32, 8, 4), {"sliding_window": 8}, "full rotary attention in every layer"),
        (Olmo2Config, (32, 8, 4), {}, "full rotary attention in every layer"),  # a norm over all heads
    ],
)
def test_others_keep_their_own_cache(config, bits, changes, message):
    model = make(config, bits, **changes)
    with pytest.raises(InputError, match=message):
        IntegerCache(model)
    assert inference_cache(model) is None


def test_keys_that_are_not_of_the_layers_outputs_are_noticed():
    """An attention that does more to its keys than is known here."""
    model = make(PhiConfig, qk_layernorm=True, hidden_size=64)
    with pytest.raises(InputError, match="phi, layer 0: keys or values are not those of its layers"):
        logits(model, IntegerCache(model), tokens())
    assert inference_cache(model) is None
