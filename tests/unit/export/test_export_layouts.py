"""The bytes of both layouts against the bit-by-bit double."""

import math

import pytest
import torch
from reference.dense_packing import words
from tiny_models import recipe

from bitdistiller.export.compressed_tensors import PackQuantized
from bitdistiller.export.lookup import Lookup
from bitdistiller.export.registry import get_layout
from bitdistiller.formats import get_format

OUT, GROUPS = 10, 3


def quantised(name, group_size):
    weight = torch.randn(OUT, GROUPS * group_size, generator=torch.Generator().manual_seed(3))
    return get_format(name, scale_dtype="bfloat16").quantize(weight, group_size)


def signed(word):
    return word - (1 << 32) if word >> 31 else word


@pytest.mark.parametrize("group_size", [8, 32, 128])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_pack_quantized_is_one_dense_stream_of_signed_codes(bits, group_size):
    codes, scale, zero_point = quantised(f"int{bits}", group_size)
    tensors = PackQuantized(recipe(f"int{bits}", group_size)).encode(codes, scale, zero_point)
    assert tensors["weight_packed"].dtype == tensors["weight_zero_point"].dtype == torch.int32
    assert tensors["weight_packed"].shape == (OUT, math.ceil(codes.shape[1] * bits / 32))
    assert tensors["weight_zero_point"].shape == (math.ceil(OUT * bits / 32), GROUPS)
    assert tensors["weight_shape"].tolist() == list(codes.shape)
    for row, packed in zip(codes.tolist(), tensors["weight_packed"].tolist(), strict=True):
        assert packed == [signed(word) for word in words(row, bits, 32)]
    for column, packed in zip(zero_point.T.tolist(), tensors["weight_zero_point"].T.tolist(), strict=True):
        assert packed == [signed(word) for word in words(column, bits, 32)]


@pytest.mark.parametrize("group_size", [8, 32])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_lookup_is_one_dense_stream_of_bytes(bits, group_size):
    codes, scale, zero_point = quantised(f"nf{bits}", group_size)
    tensors = Lookup(recipe(f"nf{bits}", group_size)).encode(codes, scale, zero_point)
    assert tensors["weight_codes"].dtype == torch.uint8
    assert tensors["weight_scale"].shape == (OUT, GROUPS, 2)
    for row, packed in zip(codes.tolist(), tensors["weight_codes"].tolist(), strict=True):
        assert packed == words(row, bits, 8)


@pytest.mark.parametrize("name", ["int2", "int3", "nf3", "sym4"])
def test_padded_groups_go_to_the_layout_of_our_own(name):
    weight = torch.randn(OUT, 72, generator=torch.Generator().manual_seed(9))
    chosen = recipe(name, 32, pad=True)
    layout, number_format = get_layout(chosen), get_format(name, "bfloat16", pad=True)
    given = number_format.quantize(weight, 32)
    tensors = layout.encode(*given)
    assert isinstance(layout, Lookup)
    assert set(tensors) == set(layout.suffixes)
    assert tensors["weight_shape"].tolist() == [OUT, 72]
    for ours, expected in zip(layout.decode(tensors), given, strict=True):
        assert (ours is None and expected is None) or torch.equal(ours, expected)
    assert torch.equal(layout.dequantize(tensors), number_format.fake_quantize(weight, 32))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("scale_dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["int2", "int3", "int4", "nf2", "nf3", "nf4", "sym3", "sym8"])
def test_decode_undoes_encode(name, scale_dtype, dtype):
    weight = torch.randn(OUT, 64, generator=torch.Generator().manual_seed(5))
    number_format = get_format(name, scale_dtype=scale_dtype)
    given = number_format.quantize(weight, 32)
    layout = get_layout(recipe(name, 32, dtype, scale_dtype))
    tensors = layout.encode(*given)
    assert tuple(tensors) == layout.suffixes
    for ours, theirs in zip(given, layout.decode(tensors), strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)
    assert torch.equal(layout.dequantize(tensors), number_format.fake_quantize(weight, 32))


def test_scales_are_narrow_only_where_the_reader_rounds_once():
    assert PackQuantized(recipe(dtype="bfloat16", scale_dtype="bfloat16")).stored_scale_dtype == torch.bfloat16
    for dtype, scale_dtype in (("float32", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")):
        assert PackQuantized(recipe(dtype=dtype, scale_dtype=scale_dtype)).stored_scale_dtype == torch.float32


def test_lookup_config_holds_the_table_that_codes_point_into():
    chosen = recipe("nf3", 64)
    config = Lookup(chosen).quantization_config(["lm_head"])
    assert config["quant_method"] == "bitdistiller"
    assert config["format"] == "nf3"
    assert len(config["levels"]) == 8
    assert config["levels"] == sorted(config["levels"])
    assert config["levels"][0] == -1
    assert config["levels"][3] == 0
    assert config["levels"][7] == 1
