"""The packed linear layer, and models whose layers are packed."""

import pytest
import torch
from helpers.tiny import write_model

import bitdistiller
from bitdistiller.config import ExportRecipe, Quantization
from bitdistiller.errors import InputError
from bitdistiller.export import stage
from bitdistiller.formats import get_format
from bitdistiller.kernels.packed import values as values_of
from bitdistiller.layers import PackedLinear


def pack(model, output, number_format, group_size=64):
    quantization = Quantization(format=number_format, group_size=group_size)
    recipe = ExportRecipe(quantization=quantization, dtype="float32")
    stage.run(recipe, weights=model, clip=None, output=output, work=None, time_budget=None, verify=False)
    return output / "checkpoint"


@pytest.mark.parametrize("number_format", ["int2", "int3", "int4", "nf3"])
def test_a_model_that_stays_packed_computes_the_same(number_format, tmp_path):
    checkpoint = pack(write_model(tmp_path / "model"), tmp_path / "out", number_format)
    dense, packed = bitdistiller.load_model(checkpoint), bitdistiller.load_model(checkpoint, packed=True)
    layers = [module for module in packed.modules() if isinstance(module, PackedLinear)]
    assert len(layers) == 14
    assert not packed.training
    tokens = torch.randint(128, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for part in (tokens, tokens[:1, :2]):
            expected = dense(part).logits
            assert (packed(part).logits - expected).abs().max() < 1e-4 * expected.abs().max()
    sampled = [model.generate(tokens[:1, :4], max_new_tokens=20, do_sample=False) for model in (dense, packed)]
    assert torch.equal(*sampled)


def test_biases_and_shapes(tmp_path):
    number_format = get_format("int2")
    weight, bias = torch.randn(6, 128), torch.randn(6)
    parts = number_format.quantize(weight, 64)
    layer = PackedLinear.from_codes(*parts, number_format, 64, bias)
    x = torch.randn(2, 3, 128)
    expected = torch.nn.functional.linear(x, number_format.dequantize(*parts, 64), bias)
    assert layer(x).shape == (2, 3, 6)
    assert torch.allclose(layer(x), expected, atol=1e-4)
    assert "in_features=128, out_features=6, bits=2" in repr(layer)


def test_a_change_of_dtype_leaves_scales_and_levels_alone():
    number_format = get_format("nf3")
    layer = PackedLinear.from_codes(*number_format.quantize(torch.randn(4, 64), 64), number_format, 64)
    before = values_of(layer.packed)
    assert torch.equal(values_of(layer.to(torch.bfloat16).packed), before)
    assert layer(torch.randn(1, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_what_cannot_stay_packed_is_refused(tmp_path):
    model = write_model(tmp_path / "model")
    with pytest.raises(InputError, match="its weights are not packed"):
        bitdistiller.load_model(model, packed=True)
    checkpoint = pack(model, tmp_path / "sym", "sym4")
    with pytest.raises(InputError, match="format sym4; accepted: int2 to int4, nf2 to nf4"):
        bitdistiller.load_model(checkpoint, packed=True)
    checkpoint = pack(model, tmp_path / "small", "int2", 32)
    with pytest.raises(InputError, match=r"groups of 32 of \d+; accepted: multiples of 64"):
        bitdistiller.load_model(checkpoint, packed=True)


def test_speed_measures_a_packed_model_beside_a_dense_one(tmp_path):
    from bitdistiller.evaluation.speed import Load, measure

    checkpoint = pack(write_model(tmp_path / "model"), tmp_path / "out", "int2")
    packed, dense = measure([checkpoint, checkpoint], Load(8, 2, 1, repeats=1), packed=True)
    assert packed.name == f"{checkpoint} (packed)"
    assert packed.memory < dense.memory
    assert packed.disk == dense.disk
