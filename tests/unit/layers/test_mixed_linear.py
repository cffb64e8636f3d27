"""LLM-QAT's linear layer: what is quantised where, and what flows back."""

import pytest
import torch
from helpers.tiny import make_model
from reference.onebit import symmetric
from torch import nn

from bitdistiller.config import MixedBits
from bitdistiller.errors import InputError
from bitdistiller.layers import MixedLinear, check_cached, mix_linears

X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))


def layer(bits=(4, 8, 4), cached=False, bias=True):
    torch.manual_seed(0)
    linear = nn.Linear(8, 6, bias=bias)
    return linear, MixedLinear.of(linear.weight, linear.bias, MixedBits(*bits), cached)


def rows(tensor, bits):
    return torch.tensor([symmetric(row, bits) for row in tensor.flatten(0, -2).tolist()]).view(tensor.shape)


@pytest.mark.parametrize("cached", [False, True])
def test_weight_input_and_cached_output_are_quantised(cached):
    linear, mixed = layer(cached=cached)
    expected = rows(X, 8) @ rows(linear.weight.detach(), 4).T + linear.bias
    expected = rows(expected.detach(), 4) if cached else expected
    torch.testing.assert_close(mixed(X), expected, rtol=1e-5, atol=1e-5)


def test_32_bits_leave_everything_as_it_is():
    linear, mixed = layer(bits=(32, 32, 32), cached=True)
    assert torch.equal(mixed(X), linear(X))


def test_16_bits_are_quantised():
    _, exact = layer(bits=(4, 32, 32))
    _, mixed = layer(bits=(4, 16, 16), cached=True)
    assert not torch.equal(mixed(X), exact(X))
    torch.testing.assert_close(mixed(X), exact(X), rtol=1e-3, atol=1e-3)


def test_gradients_stop_where_values_reach_two():
    _, mixed = layer()
    x = (3 * X).requires_grad_()
    mixed(x).sum().backward()
    assert torch.equal(x.grad == 0, x.detach().abs() >= 2)
    assert mixed.weight.grad is not None
    assert mixed.bias.grad is not None


def test_only_keys_and_values_are_cached_and_all_parameters_train():
    model = make_model(0)
    parameters = dict(model.named_parameters())
    names = mix_linears(model, MixedBits(4, 8, 4))
    assert len(names) == 14
    cached = {name.rpartition(".")[2] for name in names if model.get_submodule(name).cached}
    assert cached == {"k_proj", "v_proj"}
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name]
        assert parameter.requires_grad


def test_one_scale_for_all_heads_of_a_token():
    """Keys and values of all heads of a token (grouped-query attention too) lie on one grid."""
    model = make_model(0, num_key_value_heads=2)
    mix_linears(model, MixedBits(8, 32, 4))
    keys = model.model.layers[0].self_attn.k_proj(torch.randn(1, 5, 64))
    for token in keys[0]:
        steps = token / (token.abs().max() / 7)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)


def test_a_model_without_key_layers_is_refused():
    with pytest.raises(InputError, match=r"model type phi3: no layers k_proj and v_proj.*accepted: 4-8-32"):
        check_cached(["model.layers.0.self_attn.qkv_proj"], MixedBits(4, 8, 4), "phi3")
    check_cached(["model.layers.0.self_attn.qkv_proj"], MixedBits(4, 8, 32), "phi3")
