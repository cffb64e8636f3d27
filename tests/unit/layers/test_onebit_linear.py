"""The 1-bit layer against its formula and the golden values of the authors' module."""

import pytest
import torch
from reference.onebit import onebit_forward

from bitdistiller.layers import OneBitLinear

Y = [
    [1.7221920, -0.5212137, -0.7431850, -0.4577933],
    [0.5570616, -0.6579379, 1.3255153, -1.2246388],
    [-1.1257792, 0.7542879, -0.8376307, 1.2091218],
]
D_WEIGHT = [-0.0886378, -0.1229453, -0.0074319, 0.2182435, 0.0758604, -0.0433532, -0.0656655, 0.0083801]
D_SCALE = [-1.1660168, 0.2063533, 0.4681797, -0.0320207]
D_FACTOR = [-0.0697137, 0.4622393, 0.3319533, -0.8968927, 0.4873514, 0.0025723, -0.4858921, -0.2782307]
D_X = [-0.1829252, -0.1646326, -0.1463401, -0.1212120, 0.1097551, 0.0914626, 0.0731701, 0.0548776]


@pytest.fixture
def layer():
    """W[i,j] = sin(1 + 3i + 7j), 4 x 8, with the golden vectors."""
    i, j = torch.meshgrid(torch.arange(4.0), torch.arange(8.0), indexing="ij")
    layer = OneBitLinear(8, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.sin(1 + 3 * i + 7 * j))
        layer.weight_scale.copy_(torch.tensor([0.5, 0.75, 1.0, 1.25]))
        layer.input_factor.copy_(1 - 0.1 * torch.arange(8.0))
    return layer


@pytest.fixture
def x():
    t, j = torch.meshgrid(torch.arange(3.0), torch.arange(8.0), indexing="ij")
    return torch.cos(0.5 + 2 * t + 5 * j)


def test_golden_values_and_gradients(layer, x):
    x.requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, torch.tensor(Y), atol=1e-6, rtol=0)
    t, i = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    (y * torch.sin(0.3 * (t + 1) * (i + 2))).sum().backward()
    close = {"atol": 2e-6, "rtol": 0}
    torch.testing.assert_close(layer.weight.grad[0], torch.tensor(D_WEIGHT), **close)
    assert layer.weight.grad.sum().item() == pytest.approx(0.4756512, abs=1e-5)
    assert layer.weight.grad.abs().sum().item() == pytest.approx(7.4096551, abs=1e-5)
    torch.testing.assert_close(layer.weight_scale.grad, torch.tensor(D_SCALE), **close)
    torch.testing.assert_close(layer.input_factor.grad, torch.tensor(D_FACTOR), **close)
    torch.testing.assert_close(x.grad[0], torch.tensor(D_X), **close)


def test_the_formula_in_float64_with_a_zero_weight(layer, x):
    layer, x = layer.double(), x.double()
    with torch.no_grad():
        layer.weight[1, 3] = 0.0
    expected = onebit_forward(x, layer.weight, layer.weight_scale, layer.input_factor)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("value", "factor"), [(0.01, 1.0009), (1.0, 0.421), (5.0, 0.00118)])
def test_the_gradient_of_the_sign(value, factor):
    layer = OneBitLinear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[value], [-value]]))
    reference = torch.ones(2, 1, requires_grad=True)
    upstream = torch.tensor([[1.0, -3.0]])
    (layer(torch.ones(1, 1)) * upstream).sum().backward()
    signs = reference * torch.tensor([[1.0], [-1.0]])
    (torch.nn.functional.layer_norm(signs.T, (2,), eps=1e-5) * upstream).sum().backward()
    expected = reference.grad * torch.tensor([[1.0], [-1.0]]) * factor
    torch.testing.assert_close(layer.weight.grad, expected, rtol=2e-3, atol=1e-12)


def test_outputs_have_no_scale_of_their_own_and_keep_the_dtype(layer, x):
    y = layer(x)
    torch.testing.assert_close(y.mean(-1), torch.zeros(3), atol=1e-6, rtol=0)
    with torch.no_grad():
        layer.weight_scale.mul_(8)
    torch.testing.assert_close(layer(x), y, atol=5e-4, rtol=0)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_product_beyond_float16_is_normalised():
    """The sum over many inputs is normalised in float32, whatever the input's dtype was."""
    layer = OneBitLinear(4, 2).half()
    with torch.no_grad():
        layer.weight_scale.fill_(30000.0)
    assert layer(torch.full((1, 4), 8.0).half()).isfinite().all()


def test_the_bias_is_added_after_the_norm(x):
    layer = OneBitLinear(8, 4, bias=True)
    y = layer(x)
    with torch.no_grad():
        layer.bias.add_(2.0)
    torch.testing.assert_close(layer(x), y + 2.0)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "weight_scale", "input_factor", "bias"]
