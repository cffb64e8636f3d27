"""Dense bit packing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitdistiller.errors import InputError
from bitdistiller.formats import pack_codes, unpack_codes


def naive_pack(codes, bits):
    stream = sum(code << (k * bits) for k, code in enumerate(codes))
    return list(stream.to_bytes(-(-len(codes) * bits // 8), "little"))


@given(st.integers(1, 8), st.lists(st.integers(0, 255), min_size=1, max_size=70))
@settings(max_examples=200, deadline=None)
def test_packing_is_the_little_endian_stream_and_round_trips(bits, numbers):
    codes = torch.tensor([[number % 2**bits for number in numbers]] * 2, dtype=torch.uint8)
    packed = pack_codes(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [naive_pack(codes[0].tolist(), bits)] * 2
    assert torch.equal(unpack_codes(packed, bits, len(numbers)), codes)


def test_three_bit_codes_take_three_eighths():
    codes = torch.randint(0, 8, (16, 128), dtype=torch.uint8)
    packed = pack_codes(codes, 3)
    assert packed.shape == (16, 48)
    assert torch.equal(unpack_codes(packed, 3, 128), codes)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="4 does not fit 2 bits"):
        pack_codes(torch.tensor([4], dtype=torch.uint8), 2)
    with pytest.raises(InputError, match="bits: 9; accepted: 1 to 8"):
        pack_codes(torch.tensor([4], dtype=torch.uint8), 9)
    with pytest.raises(InputError, match="rows of 5 bytes; 16 codes of 3 bits take 6"):
        unpack_codes(torch.zeros(2, 5, dtype=torch.uint8), 3, 16)
