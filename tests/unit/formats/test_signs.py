"""Signs as bits."""

import pytest
import torch

from bitdistiller.errors import InputError
from bitdistiller.formats import pack_signs, unpack_signs, zero_signs


def test_the_golden_bytes():
    """Spec C2: signs of W[i, j] = sin(1 + 3 i + 7 j)."""
    weight = torch.sin(1 + 3 * torch.arange(4.0)[:, None] + 7 * torch.arange(8.0))
    packed = pack_signs(weight)
    assert packed.dtype == torch.uint8
    assert packed.view(torch.int8).flatten().tolist() == [-8, 15, -16, 15]
    assert torch.equal(unpack_signs(packed), weight.sign())
    assert torch.equal(unpack_signs(packed.view(torch.int8)), weight.sign())


@pytest.mark.parametrize(("negative", "byte"), [([7], 128), ([0], 1), (range(8), 255), ([], 0)])
def test_the_first_column_is_the_lowest_bit(negative, byte):
    weight = torch.ones(1, 8)
    weight[0, list(negative)] = -0.01
    assert pack_signs(weight).tolist() == [[byte]]


def test_zero_becomes_one_and_is_counted():
    weight = torch.tensor([[0.0, -0.0, -1.0, 1.0, 0.0, 2.0, -3.0, 4.0]])
    assert unpack_signs(pack_signs(weight)).tolist() == [[1, 1, -1, 1, 1, 1, -1, 1]]
    assert zero_signs(weight) == 3


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="multiple of 8 input features"):
        pack_signs(torch.ones(2, 12))
    with pytest.raises(InputError, match="NaN has no sign"):
        pack_signs(torch.full((1, 8), float("nan")))
    with pytest.raises(InputError, match="accepted: uint8, or int8"):
        unpack_signs(torch.ones(1, 1, dtype=torch.int64))
