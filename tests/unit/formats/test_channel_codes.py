"""Codes of LLM-QAT's weights: for every bit width they stand for exactly the values that training multiplies with."""

import pytest
import torch

from bitdistiller.errors import InputError
from bitdistiller.formats import channel_codes, channel_values, llm_qat_weight

WEIGHT = torch.randn(12, 40, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_are_those_of_the_training(bits):
    codes, scale = channel_codes(WEIGHT, bits)
    assert codes.dtype == torch.uint8
    assert scale.shape == (12,)
    assert int(codes.max()) < 2**bits
    assert torch.equal(channel_values(codes, scale, bits), llm_qat_weight(WEIGHT, bits))


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_row_of_zeros_stays_zeros(bits):
    weight = torch.cat([WEIGHT, torch.zeros(1, 40)])
    codes, scale = channel_codes(weight, bits)
    assert torch.equal(channel_values(codes, scale, bits), llm_qat_weight(weight, bits))


def test_zero_has_no_bit():
    weight = WEIGHT.clone()
    weight[3, 4] = 0.0
    with pytest.raises(InputError, match="up_proj: 1 weights are exactly 0"):
        channel_codes(weight, 1, "up_proj")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_weights_that_are_no_numbers_are_refused(bits):
    weight = WEIGHT.clone()
    weight[3, 4] = torch.nan
    with pytest.raises(InputError, match="up_proj: infinite or NaN weights in 1 of 12 rows, first in row 3"):
        channel_codes(weight, bits, "up_proj")
