"""The fake-quantised linear layer alone."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bitdistiller.errors import InputError
from bitdistiller.formats import get_format
from bitdistiller.layers import FakeQuantizedLinear

FORMAT = get_format("int3")


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(32, 24)


@pytest.fixture
def x():
    return torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))


def test_forward_uses_the_quantised_weight_and_shares_the_parameters(linear, x):
    layer = FakeQuantizedLinear.from_linear(linear, FORMAT, 16)
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    assert torch.equal(layer(x), F.linear(x, FORMAT.fake_quantize(linear.weight, 16), linear.bias))
    assert layer.state_dict().keys() == linear.state_dict().keys()


def test_swapping_leaves_the_random_state_alone(linear):
    state = torch.random.get_rng_state()
    FakeQuantizedLinear.from_linear(linear, FORMAT, 16)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_gradients_reach_the_master_weight(linear, x):
    layer = FakeQuantizedLinear.from_linear(linear, FORMAT, 16, scale_grad=False)
    layer(x).square().sum().backward()
    weight = linear.weight.detach().clone().requires_grad_()
    F.linear(x, FORMAT.fake_quantize(weight, 16, False), linear.bias.detach()).square().sum().backward()
    assert torch.equal(layer.weight.grad, weight.grad)
    assert layer.bias.grad is not None


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16])
def test_autocast_multiplies_in_bfloat16_and_keeps_float32_gradients(linear, x, x_dtype):
    layer = FakeQuantizedLinear.from_linear(linear, FORMAT, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = checkpoint(layer, x.to(x_dtype), use_reentrant=False)
    quantized = FORMAT.fake_quantize(linear.weight, 16).bfloat16()
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, F.linear(x.bfloat16(), quantized, linear.bias.bfloat16()))
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_bfloat16_inputs_meet_float32_masters(linear, x):
    layer = FakeQuantizedLinear.from_linear(linear, FORMAT, 16)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_layers_can_be_copied_and_pickled(linear, x):
    layer = FakeQuantizedLinear.from_linear(linear, FORMAT, 16)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    assert "format=int3, group_size=16" in repr(layer)


def test_bad_weights_are_reported_by_layer(linear, x):
    layer = FakeQuantizedLinear.from_linear(linear, FORMAT, 16, name="model.layers.0.mlp.up_proj")
    with torch.no_grad():
        layer.weight[3, 2] = float("nan")
    with pytest.raises(InputError, match=r"^model\.layers\.0\.mlp\.up_proj: infinite or NaN"):
        layer(x)
    with pytest.raises(InputError, match=r"^up: group_size 15 does not divide its 32 input features"):
        FakeQuantizedLinear.from_linear(linear, FORMAT, 15, name="up")
