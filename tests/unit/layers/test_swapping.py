"""Finding and swapping the linear layers of whole models."""

import pytest
import torch
from helpers.architectures import ARCHITECTURES, build
from torch import nn

from bitdistiller.errors import InputError
from bitdistiller.formats import get_format
from bitdistiller.layers import (
    FakeQuantizedLinear,
    bake_linears,
    decoder_blocks,
    fake_quantized_linears,
    quantize_linears,
    quantized_linear_names,
    restore_linears,
)

TOKENS = torch.arange(24).view(2, 12)
FORMAT = get_format("int2", "bfloat16")
PROJECTIONS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
PROJECTIONS += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


@pytest.fixture(params=[(name, tied) for name in ARCHITECTURES for tied in (False, True)], ids=str)
def model(request):
    return build(*request.param)


@torch.no_grad()
def logits(model):
    return model(TOKENS).logits


def test_blocks_and_names(model):
    name, blocks = decoder_blocks(model)
    assert (name, len(blocks)) == ("model.layers", 3)
    assert quantized_linear_names(model) == [f"model.layers.{i}.{leaf}" for i in range(3) for leaf in PROJECTIONS]


def test_swapping_is_in_place_complete_and_without_copies(model):
    before = dict(model.named_parameters())
    names = quantize_linears(model, FORMAT, 32)
    assert names == quantized_linear_names(model) == [name for name, _ in fake_quantized_linears(model)]
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is parameter for name, parameter in before.items())
    assert not isinstance(model.lm_head, FakeQuantizedLinear)
    for name, layer in fake_quantized_linears(model):
        assert layer.name == name


def test_a_swapped_model_computes_with_the_quantised_weights(model):
    expected = build(model.config.model_type, model.config.tie_word_embeddings)
    for name in quantized_linear_names(expected):
        weight = expected.get_submodule(name).weight
        weight.data = FORMAT.fake_quantize(weight.data, 32)
    quantize_linears(model, FORMAT, 32)
    assert torch.equal(logits(model), logits(expected))


def test_restoring_and_baking(model):
    full = logits(model)
    quantize_linears(model, FORMAT, 32)
    quantized = logits(model)
    restore_linears(model)
    assert torch.equal(logits(model), full)
    assert not any(fake_quantized_linears(model))
    quantize_linears(model, FORMAT, 32)
    bake_linears(model)
    assert {type(model.get_submodule(name)) for name in quantized_linear_names(model)} == {nn.Linear}
    assert torch.equal(logits(model), quantized)


def test_every_parameter_trains(model):
    quantize_linears(model, FORMAT, 32)
    model.train()
    model(TOKENS, labels=TOKENS).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_group_size_that_does_not_divide_changes_nothing():
    model = build("llama")
    with pytest.raises(
        InputError, match=r"^model\.layers\.0\.mlp\.down_proj: group_size 64 does not divide its 96 input"
    ):
        quantize_linears(model, FORMAT, 64)
    assert not any(fake_quantized_linears(model))


def test_lists_inside_blocks_are_not_mistaken_for_the_decoder():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    model = nn.Module()
    model.decoder = nn.ModuleList(Experts() for _ in range(2))
    model.head = nn.Linear(8, 100)
    assert decoder_blocks(model)[0] == "decoder"
    assert len(quantized_linear_names(model)) == 8


def test_a_model_without_blocks_is_refused():
    with pytest.raises(InputError, match="Linear has no list of decoder blocks"):
        decoder_blocks(nn.Linear(2, 2))
