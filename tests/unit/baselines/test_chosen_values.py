"""Codes, scales and zero points: their values against the naive double, and what is refused of them."""

import pytest
import torch
from reference import affine as naive

from bitdistiller.baselines.base import Chosen, Refusal, affine_values
from bitdistiller.baselines.values import checked


def chosen(bits=3, rows=5, groups=3, size=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(2**bits, (rows, groups * size), generator=generator).to(torch.uint8)
    zero_point = torch.randint(2**bits, (rows, groups), generator=generator).to(torch.int32)
    scale = (torch.rand(rows, groups, generator=generator) + 0.1).to(dtype)
    return Chosen(codes, scale, zero_point, affine_values(codes, scale, zero_point, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_affine_values(bits, dtype):
    found = chosen(bits, dtype=dtype)
    expected = naive.affine_values(found.codes, found.scale, found.zero_point, 16)
    assert torch.equal(found.weight, expected.float().to(dtype))
    assert checked(found, bits, str(dtype).removeprefix("torch."), "w") is found


@pytest.mark.parametrize(
    "change",
    [
        {"codes": torch.full((5, 48), 8, dtype=torch.uint8)},
        {"zero_point": torch.full((5, 3), -1, dtype=torch.int32)},
        {"zero_point": torch.full((5, 3), 8, dtype=torch.int32)},
    ],
)
def test_values_out_of_range(change):
    with pytest.raises(RuntimeError, match="do not fit 3 bits"):
        checked(chosen()._replace(**change), 3, "float32", "w")


def test_scales_finer_than_said():
    with pytest.raises(RuntimeError, match="do not fit 3 bits and bfloat16"):
        checked(chosen(), 3, "bfloat16", "w")


def test_values_that_are_not_finite():
    with pytest.raises(Refusal, match="values of w are not finite"):
        checked(chosen()._replace(weight=torch.full((5, 48), float("nan"))), 3, "float32", "w")
