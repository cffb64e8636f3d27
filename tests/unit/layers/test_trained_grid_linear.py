"""Fake-quantised layers whose scales and zero points are parameters."""

import copy

import pytest
import torch
from helpers.architectures import build
from torch import nn

from bitdistiller.errors import InputError
from bitdistiller.formats import get_format, trained_grid
from bitdistiller.layers import (
    FakeQuantizedLinear,
    TrainedGridLinear,
    bake_linears,
    fake_quantized_linears,
    quantize_linears,
    restore_linears,
)

TOKENS = torch.arange(24).view(2, 12)
FORMAT = get_format("int2", "bfloat16")


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(32, 24)


@torch.no_grad()
def logits(model):
    return model(TOKENS).logits


def test_the_first_forward_is_that_of_the_layer_without_trained_scales(linear):
    x = torch.randn(3, 32)
    layer = TrainedGridLinear.from_linear(linear, FORMAT, 16, name="up")
    assert layer.weight is linear.weight
    assert layer.scale.shape == layer.zero_point.shape == (24, 2)
    assert torch.equal(layer(x), FakeQuantizedLinear.from_linear(linear, FORMAT, 16)(x))
    assert set(layer.state_dict()) == {"weight", "bias", "scale", "zero_point"}


def test_gradients_reach_weight_scale_and_zero_point(linear):
    layer = TrainedGridLinear.from_linear(linear, FORMAT, 16)
    with torch.no_grad():
        layer.scale.mul_(0.6)
    x = torch.randn(3, 32)
    layer(x).square().sum().backward()
    tensors = [layer.weight, layer.scale, layer.zero_point]
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    values = trained_grid(FORMAT).fake_quantize(*leaves, 16)
    nn.functional.linear(x, values, linear.bias.detach()).square().sum().backward()
    for tensor, leaf in zip(tensors, leaves, strict=True):
        assert torch.equal(tensor.grad, leaf.grad)
        assert tensor.grad.any()


def test_a_state_dict_goes_into_another_model():
    first, second = (build("llama") for _ in range(2))
    for model in (first, second):
        quantize_linears(model, FORMAT, 32, train_scales=True)
    with torch.no_grad():
        for _, layer in fake_quantized_linears(first):
            layer.scale.mul_(0.8)
            layer.zero_point.add_(1)
    assert not torch.equal(logits(first), logits(second))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(logits(first), logits(second))


def test_swapping_restoring_and_baking():
    model, plain = build("llama"), build("llama")
    full = logits(model)
    names = quantize_linears(model, FORMAT, 32, train_scales=True)
    quantize_linears(plain, FORMAT, 32)
    assert {type(model.get_submodule(name)) for name in names} == {TrainedGridLinear}
    assert torch.equal(logits(model), logits(plain))
    with torch.no_grad():
        for _, layer in fake_quantized_linears(model):
            layer.scale.mul_(0.8)
    quantized = logits(model)
    twin = copy.deepcopy(model)
    assert bake_linears(model) == restore_linears(twin) == names
    assert torch.equal(logits(model), quantized)
    assert torch.equal(logits(twin), full)
    assert {type(twin.get_submodule(name)) for name in names} == {nn.Linear}
    assert not any(name.endswith(("scale", "zero_point")) for name in twin.state_dict())


def test_a_model_on_the_meta_device_gets_its_shapes():
    with torch.device("meta"):
        model = build("llama")
    for name in quantize_linears(model, FORMAT, 32, train_scales=True):
        layer = model.get_submodule(name)
        assert layer.scale.is_meta
        assert layer.scale.shape == layer.zero_point.shape == (layer.out_features, layer.in_features // 32)


def test_other_formats_are_refused_before_anything_is_swapped():
    model = build("llama")
    for name in ("nf3", "sym4"):
        with pytest.raises(InputError, match=rf"^train_scales: {name} has no scales and zero points to train"):
            quantize_linears(model, get_format(name), 32, train_scales=True)
    assert not any(fake_quantized_linears(model))
