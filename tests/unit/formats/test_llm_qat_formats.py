"""LLM-QAT's quantisers against their formulas and the golden values of the authors' code."""

import pytest
import torch
from reference.onebit import asymmetric, symmetric, two_bits

from bitdistiller.formats import asymmetric_fake_quantize, llm_qat_weight, symmetric_fake_quantize

ROW = [0.1, -0.25, 0.5, -1.0, 2.5, -2.0, 0.0, 0.7]
GOLDEN = {
    4: [0, -0.3571429, 0.3571429, -1.0714285, 2.5, -2.1428571, 0, 0.7142857],
    6: [0.0806452, -0.2419356, 0.4838711, -0.9677422, 2.5, -2.0161295, 0, 0.7258067],
    8: [0.0984252, -0.2559056, 0.4921262, -1.0039374, 2.5000010, -2.0078747, 0, 0.7086617],
}
ASYMMETRIC = [0.0999999, -0.1999999, 0.4, -1.0999999, 2.5, -2, 0.0999999, 0.7]
INSIDE = [1.0, 1, 1, 1, 0, 0, 1, 1]


def gradient_of_ones(quantise, x):
    x = x.clone().requires_grad_()
    quantise(x).sum().backward()
    return x.grad


@pytest.mark.parametrize("bits", GOLDEN)
def test_golden_symmetric_values_and_gate(bits):
    row = torch.tensor(ROW)
    torch.testing.assert_close(symmetric_fake_quantize(row, bits), torch.tensor(GOLDEN[bits]), atol=2e-6, rtol=0)
    assert gradient_of_ones(lambda x: symmetric_fake_quantize(x, bits), row).tolist() == INSIDE


def test_golden_asymmetric_values_and_gate():
    row = torch.tensor(ROW)
    torch.testing.assert_close(asymmetric_fake_quantize(row, 4), torch.tensor(ASYMMETRIC), atol=2e-6, rtol=0)
    assert gradient_of_ones(lambda x: asymmetric_fake_quantize(x, 4), row).tolist() == INSIDE


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_every_row_of_activations_has_its_own_scale(bits):
    x = torch.randn(2, 3, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3
    for quantise, formula in ((symmetric_fake_quantize, symmetric), (asymmetric_fake_quantize, asymmetric)):
        expected = torch.tensor([formula(row, bits) for row in x.flatten(0, 1).tolist()], dtype=torch.float64)
        torch.testing.assert_close(quantise(x, bits).flatten(0, 1), expected, atol=1e-12, rtol=1e-12)


def test_one_bit_activations_are_zero():
    assert not symmetric_fake_quantize(torch.tensor(ROW), 1).any()


def test_bfloat16_is_computed_in_float32():
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    expected = symmetric_fake_quantize(x.float(), 8).bfloat16()
    assert torch.equal(symmetric_fake_quantize(x, 8), expected)
    assert gradient_of_ones(lambda value: symmetric_fake_quantize(value, 8), x).dtype == torch.bfloat16


@pytest.mark.parametrize("bits", [3, 4, 8, 16, 31])
def test_weights_of_three_bits_and_more_are_symmetric(bits):
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(4))
    assert torch.equal(llm_qat_weight(weight, bits), symmetric_fake_quantize(weight, bits))


def test_the_rules_of_two_bits_one_bit_and_none():
    weight = torch.tensor([ROW, [value * -0.3 for value in ROW], [0.0] * 8])
    two = llm_qat_weight(weight, 2)
    torch.testing.assert_close(two[:2], torch.tensor([two_bits(row) for row in weight[:2].tolist()]))
    mean = weight.abs().mean(1)
    assert set((two[0] / (2 * mean[0])).mul(4).round().tolist()) <= {-3.0, -1.0, 1.0, 3.0}
    assert torch.equal(llm_qat_weight(weight, 1), mean.unsqueeze(1) * weight.sign())
    assert llm_qat_weight(weight, 32) is weight
    for bits in (1, 2, 32):
        assert gradient_of_ones(lambda x, bits=bits: llm_qat_weight(x, bits), weight).tolist() == [[1.0] * 8] * 3
