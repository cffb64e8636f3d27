"""Integer formats on a grid that is trained beside the weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.formats import trained_grid as naive

from bitdistiller.errors import InputError
from bitdistiller.formats import get_format, trained_grid
from bitdistiller.kernels import can_compile, using

INTEGERS = ("int2", "int3", "int4")
ROUNDING = {"bfloat16": torch.bfloat16, "float32": None}


def example(dtype=torch.float64, rows=6, columns=32, group_size=8):
    """Weight, scale and zero point, with some of each beyond their limits, and an upstream gradient."""
    generator = torch.Generator().manual_seed(3)
    weight, upstream = torch.randn(2, rows, columns, generator=generator, dtype=dtype)
    scale = torch.rand(rows, -(-columns // group_size), generator=generator, dtype=dtype) * 0.7 + 0.2
    zero_point = torch.randn(rows, -(-columns // group_size), generator=generator, dtype=dtype) * 1.5 + 1.4
    scale[0, 0], scale[1, 1], zero_point[2, 0], zero_point[3, 1] = -0.1, 1e-9, -0.3, 20.0
    return weight, scale, zero_point, upstream


def value_and_gradients(quantize, weight, scale, zero_point, upstream):
    tensors = [tensor.clone().requires_grad_() for tensor in (weight, scale, zero_point)]
    values = quantize(*tensors)
    return values.detach(), torch.autograd.grad(values, tensors, upstream.to(values.dtype))


def assert_equals_the_naive_one(name, scale_dtype, weight, scale, zero_point, upstream):
    bits, grid = int(name[-1]), trained_grid(get_format(name, scale_dtype))
    ours = value_and_gradients(lambda w, s, z: grid.fake_quantize(w, s, z, 8), weight, scale, zero_point, upstream)
    expected = value_and_gradients(
        lambda w, s, z: naive(w, s, z, bits, 8, ROUNDING[scale_dtype]), weight, scale, zero_point, upstream
    )
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("scale_dtype", ROUNDING)
@pytest.mark.parametrize("name", INTEGERS)
def test_values_and_gradients(name, scale_dtype):
    assert_equals_the_naive_one(name, scale_dtype, *example())


@pytest.mark.parametrize("name", INTEGERS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_group(name, data):
    def draw(numbers, count):
        return torch.tensor(data.draw(st.lists(numbers, min_size=count, max_size=count)), dtype=torch.float64)

    ties = st.sampled_from([k / 16 for k in range(-32, 33)])
    weight, upstream = (draw(ties | st.floats(-2, 2), 16).view(2, 8) for _ in range(2))
    scale = draw(st.sampled_from([-0.5, 0.0, 0.125, 0.25, 0.5]) | st.floats(0.1, 1), 2).view(2, 1)
    zero_point = draw(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.5, 3.0, 7.5, 99.0]) | st.floats(-1, 8), 2).view(2, 1)
    assert_equals_the_naive_one(name, "float32", weight, scale, zero_point, upstream)


@pytest.mark.parametrize("name", INTEGERS)
def test_the_gradient_of_a_scale_is_the_slope_where_no_code_changes(name):
    grid = trained_grid(get_format(name))
    weight, scale, zero_point, upstream = example()
    weight = weight.sign() * 1e3  # every weight is clamped to an end, where its value is linear in s and z
    scale, zero_point = scale.clamp(min=0.1), zero_point.round().clamp(1, 2)
    _, (_, to_scale, to_zero_point) = value_and_gradients(
        lambda w, s, z: grid.fake_quantize(w, s, z, 8), weight, scale, zero_point, upstream
    )

    def loss(s, z):
        return (grid.fake_quantize(weight, s, z, 8) * upstream).view(6, 4, 8).sum(-1)

    slope = (loss(scale + 1e-6, zero_point) - loss(scale - 1e-6, zero_point)) / 2e-6
    torch.testing.assert_close(to_scale, slope, atol=1e-5, rtol=1e-5)
    step = loss(scale, zero_point + 1) - loss(scale, zero_point)
    torch.testing.assert_close(to_zero_point, step, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("scale_dtype", ROUNDING)
@pytest.mark.parametrize("name", INTEGERS)
def test_it_starts_with_the_values_of_the_format_itself(name, scale_dtype):
    number_format = get_format(name, scale_dtype)
    grid = trained_grid(number_format)
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    weight[0], weight[1], weight[2] = weight[0].abs(), 0.0, 1e-7
    start = grid.start(weight, 16)
    assert [tensor.dtype for tensor in start] == [torch.float32] * 2
    for dtype in (None, torch.bfloat16):
        expected = number_format.fake_quantize(weight, 16, dtype=dtype)
        assert torch.equal(grid.fake_quantize(weight, *start, 16, dtype=dtype), expected)
    for ours, theirs in zip(grid.quantize(weight, *start, 16), number_format.quantize(weight, 16), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scale_dtype", ROUNDING)
@pytest.mark.parametrize("name", INTEGERS)
def test_codes_decode_to_the_fake_quantised_values(name, scale_dtype):
    number_format = get_format(name, scale_dtype, pad=True)
    grid = trained_grid(number_format)
    weight, scale, zero_point, _ = example(torch.float32, columns=30)
    for dtype in (torch.float32, torch.bfloat16):
        values = number_format.dequantize(*grid.quantize(weight, scale, zero_point, 8), 8, dtype)
        assert torch.equal(values, grid.fake_quantize(weight, scale, zero_point, 8, dtype=dtype))


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler")
@pytest.mark.parametrize("scale_dtype", ROUNDING)
def test_the_compiled_form_gives_the_same(scale_dtype):
    grid = trained_grid(get_format("int2", scale_dtype))
    numbers = example(torch.float32)
    with using("eager"):
        expected = value_and_gradients(lambda w, s, z: grid.fake_quantize(w, s, z, 8), *numbers)
    with using("compiled"):
        ours = value_and_gradients(lambda w, s, z: grid.fake_quantize(w, s, z, 8), *numbers)
    assert torch.equal(ours[0], expected[0])
    torch.testing.assert_close(ours[1], expected[1], atol=1e-6, rtol=1e-6)


def test_many_chunks(monkeypatch):
    grid = trained_grid(get_format("int3", "bfloat16"))
    numbers = example(torch.float32, rows=33)
    whole = value_and_gradients(lambda w, s, z: grid.fake_quantize(w, s, z, 8), *numbers)
    monkeypatch.setattr("bitdistiller.kernels.eager.CPU_CHUNK", 5 * 8)
    parts = value_and_gradients(lambda w, s, z: grid.fake_quantize(w, s, z, 8), *numbers)
    torch.testing.assert_close(parts, whole, atol=0, rtol=0)


def test_only_weight_and_grid_are_kept_for_the_backward():
    grid = trained_grid(get_format("int2"))
    weight, scale, zero_point, _ = (tensor.requires_grad_() for tensor in example(torch.float32))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        grid.fake_quantize(weight, scale, zero_point, 8)
    assert {tensor.data_ptr() for tensor in kept} == {tensor.data_ptr() for tensor in (weight, scale, zero_point)}


def test_errors():
    with pytest.raises(InputError, match=r"^train_scales: nf3 has no scales .*; accepted: int2, int3, int4"):
        trained_grid(get_format("nf3"))
    grid = trained_grid(get_format("int2"))
    weight, scale, zero_point, _ = example()
    with pytest.raises(InputError, match=r"^up\.scale: shape \(6, 3\); accepted: \(6, 4\)"):
        grid.fake_quantize(weight, scale[:, :3], zero_point, 8, name="up")
    weight[4, 9] = torch.inf
    with pytest.raises(InputError, match=r"^up: infinite or NaN weights in 1 of 6 rows, first in row 4"):
        grid.fake_quantize(weight, scale, zero_point, 8, name="up")
    scale[1, 0] = torch.nan
    with pytest.raises(InputError, match=r"^up: infinite or NaN scales in 1 of 6 rows, first in row 1"):
        grid.fake_quantize(weight, scale, zero_point, 8, name="up")
