"""Gradients against autograd of the naive formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.formats import fake_quantize

from bitdistiller.formats import format_names, get_format

GROUPS = {
    "random": [0.9, -0.7, 0.1, 0.32, -0.05, 0.6, -0.2, 0.44],
    "tied maximum": [0.9, 0.9, 0.9, 0.1, -0.3, -0.31, 0.2, 0.5],
    "tied ends": [0.9, 0.9, -0.9, -0.9, -0.9, 0.1, 0.2, 0.33],
    "constant": [0.3] * 8,
    "negative constant": [-0.3] * 8,
    "zero": [0.0] * 8,
    "positive": [0.9, 0.7, 0.1, 0.32, 0.05, 0.6, 0.2, 0.44],
    "negative": [-0.9, -0.7, -0.1, -0.32, -0.05, -0.6, -0.2, -0.44],
    "maximum zero": [0.0, 0.0, -0.1, -0.32, -0.05, -0.6, -0.2, -0.44],
    "beyond the gate": [2.0, -2.0, 1.999, -1.999, 2.5, -3.0, 0.1, 0.0],
    "tiny range": [1e-6, -2e-6, 3e-6, 0.0, 1e-6, 2e-6, 0.0, -1e-6],
}


def gradients(quantize, weight, upstream):
    weight = weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(quantize(weight), weight, upstream)
    return gradient


def both(name, weight, upstream, scale_grad, **options):
    """(ours, the naive one's) for the same weight."""
    rounding = {"bfloat16": torch.bfloat16, "float32": None}[options.get("scale_dtype", "float32")]
    naive = {key: value for key, value in options.items() if key == "reference_range"}
    expected = gradients(
        lambda w: fake_quantize(name, w, 8, scale_grad=scale_grad, scale_dtype=rounding, **naive), weight, upstream
    )
    return gradients(lambda w: get_format(name, **options).fake_quantize(w, 8, scale_grad), weight, upstream), expected


def test_golden_gradients(golden_weight, golden_upstream, golden):
    for name, row in golden["gradients"].items():
        gradient = gradients(lambda w, n=name: get_format(n).fake_quantize(w, 8), golden_weight, golden_upstream)
        torch.testing.assert_close(gradient[0], torch.tensor(row, dtype=torch.float64), atol=5e-8, rtol=0)


@pytest.mark.parametrize("scale_grad", [True, False])
@pytest.mark.parametrize("case", GROUPS)
@pytest.mark.parametrize("name", format_names())
def test_special_groups(name, case, scale_grad):
    weight = torch.tensor([GROUPS[case]], dtype=torch.float64)
    upstream = torch.linspace(-1, 2, 8, dtype=torch.float64)[None]
    ours, expected = both(name, weight, upstream, scale_grad)
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scale_grad", [True, False])
@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", format_names())
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_group(name, scale_dtype, scale_grad, data):
    # Autograd of the naive formula divides by the square of a scale, which must not underflow.
    any_float = st.floats(-1, 1).map(lambda x: x if abs(x) > 1e-100 else 0.0)
    numbers = st.lists(st.sampled_from([k / 16 for k in range(-16, 17)]) | any_float, min_size=16, max_size=16)
    weight, upstream = (torch.tensor(data.draw(numbers), dtype=torch.float64).view(2, 8) for _ in range(2))
    ours, expected = both(name, weight, upstream, scale_grad, scale_dtype=scale_dtype)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scale_grad", [True, False])
def test_reference_range(scale_grad):
    weight, upstream = torch.randn(2, 6, 8, dtype=torch.float64)
    weight[0] = weight[0].abs() + 0.1
    ours, expected = both("int2", weight, upstream, scale_grad, reference_range=True)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", format_names())
def test_low_precision_gradients_come_from_float32_arithmetic(name, dtype):
    weight, upstream = (torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(6)) * 0.1).to(dtype)
    ours = gradients(lambda w: get_format(name).fake_quantize(w, 8), weight, upstream)
    expected = gradients(lambda w: fake_quantize(name, w, 8), weight.double(), upstream.double())
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), expected, atol=1e-6, rtol=max(1e-4, torch.finfo(dtype).eps))


@pytest.mark.parametrize("name", format_names())
def test_many_chunks_and_strided_gradients(name, monkeypatch):
    weight, upstream = torch.randn(33, 64), torch.randn(64, 33).t()
    whole = gradients(lambda w: get_format(name).fake_quantize(w, 16), weight, upstream)
    monkeypatch.setattr("bitdistiller.kernels.eager.CPU_CHUNK", 5 * 64)
    assert torch.equal(gradients(lambda w: get_format(name).fake_quantize(w, 16), weight, upstream), whole)


def test_a_weight_changed_before_backward_is_noticed():
    weight = torch.randn(4, 8, requires_grad=True)
    values = get_format("int2").fake_quantize(weight, 8)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.sum().backward()
