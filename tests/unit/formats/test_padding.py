"""Input features that the group size does not divide: refused, or padded with zeros that leave no trace."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.formats import fake_quantize as naive

from bitdistiller.errors import InputError
from bitdistiller.formats import format_names, get_format


def padded_naive(name, weight, group_size):
    zeros = weight.new_zeros(len(weight), -weight.shape[1] % group_size)
    return naive(name, torch.cat([weight, zeros], dim=1), group_size)[:, : weight.shape[1]]


def test_without_the_option_the_layer_is_named_and_the_option_too():
    with pytest.raises(InputError, match=r"up: group_size 16 does not divide its 24 input features; .* pad: true"):
        get_format("int2").fake_quantize(torch.randn(2, 24), 16, name="up")


@pytest.mark.parametrize("name", format_names())
@given(columns=st.integers(1, 40), group_size=st.integers(1, 17), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_values_and_gradients_are_those_of_the_zero_filled_group(name, columns, group_size, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, upstream = torch.randn(2, 3, columns, generator=generator, dtype=torch.float64)
    ours, expected = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    values = get_format(name, pad=True).fake_quantize(ours, group_size)
    reference = padded_naive(name, expected, group_size)
    torch.testing.assert_close(values, reference, rtol=1e-12, atol=1e-12)
    values.backward(upstream)
    reference.backward(upstream)
    torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
def test_codes_round_trip(name, scale_dtype):
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(3))
    number_format = get_format(name, scale_dtype, pad=True)
    codes, scale, zero_point = number_format.quantize(weight, 16)
    assert (codes.shape, scale.shape[:2]) == ((5, 40), (5, 3))
    assert zero_point is None or zero_point.shape == (5, 3)
    values = number_format.dequantize(codes, scale, zero_point, 16)
    assert torch.equal(values, number_format.fake_quantize(weight, 16))


def test_a_group_size_that_divides_is_not_touched():
    weight = torch.randn(4, 32)
    assert torch.equal(
        get_format("int3", pad=True).fake_quantize(weight, 16), get_format("int3").fake_quantize(weight, 16)
    )
