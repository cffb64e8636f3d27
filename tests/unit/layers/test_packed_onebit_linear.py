"""The packed 1-bit layer against the one that is trained, and against loops."""

import pytest
import torch
from reference.onebit import onebit_forward

from bitdistiller.errors import InputError
from bitdistiller.formats import pack_signs
from bitdistiller.kernels.packed import cpu
from bitdistiller.layers import OneBitLinear, PackedOneBitLinear


def trained(bias=False, in_features=96, out_features=40):
    torch.manual_seed(1)
    layer = OneBitLinear(in_features, out_features, bias=bias)
    with torch.no_grad():
        layer.weight_scale.uniform_(0.5, 1.5)
        layer.input_factor.uniform_(0.5, 1.5)
        layer.weight.normal_()
    return layer


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("bias", [False, True])
def test_it_computes_what_the_trained_layer_does(bias, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(cpu, "works", lambda: False)
    layer = trained(bias)
    packed = PackedOneBitLinear.from_layer(layer)
    for shape in ((1, 96), (2, 3, 96), (50, 96)):
        x = torch.randn(*shape)
        expected = layer(x)
        assert packed(x).shape == expected.shape
        assert (packed(x) - expected).abs().max() < 1e-5
    narrow = torch.randn(4, 96).bfloat16()
    assert packed(narrow).dtype == torch.bfloat16
    assert (packed(narrow) - layer(narrow)).abs().max() < 0.1


def test_it_equals_the_formula():
    layer = trained(in_features=16, out_features=8)
    x = torch.randn(3, 16)
    parts = (layer.weight.detach(), layer.weight_scale.detach(), layer.input_factor.detach())
    expected = onebit_forward(*(t.double() for t in (x, *parts)))
    assert (PackedOneBitLinear.from_layer(layer)(x).double() - expected).abs().max() < 1e-5


def test_the_released_layout_is_read():
    layer = trained()
    signs = pack_signs(layer.weight.detach()).view(torch.int8)
    packed = PackedOneBitLinear(signs, layer.weight_scale.detach(), layer.input_factor.detach())
    x = torch.randn(2, 96)
    assert torch.equal(packed(x), PackedOneBitLinear.from_layer(layer)(x))


def test_memory_is_a_bit_a_weight():
    packed = PackedOneBitLinear.from_layer(trained(in_features=4096, out_features=64))
    assert packed.codes.nbytes * 8 == 4096 * 64


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"packed signs of shape \(4, 2\), weight_scale of 4 and input_factor of 8"):
        PackedOneBitLinear(torch.zeros(4, 2, dtype=torch.uint8), torch.ones(4), torch.ones(8))


def test_a_change_of_dtype_leaves_both_vectors_alone():
    packed = PackedOneBitLinear.from_layer(trained())
    before = packed.weight_scale.clone(), packed.input_factor.clone()
    packed.to(torch.bfloat16)
    assert torch.equal(packed.weight_scale, before[0])
    assert torch.equal(packed.input_factor, before[1])
