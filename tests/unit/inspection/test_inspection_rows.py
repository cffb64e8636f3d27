"""Rows of every kind of directory, against the tensors they describe, and the row that sums them up."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import bitdistiller
from bitdistiller.formats import get_format
from bitdistiller.inspection.rows import LayerRow, total
from bitdistiller.inspection.sources import Options, open_source

NAME = "model.layers.1.mlp.down_proj"
SKIPPED = "model.layers.0.self_attn.q_proj"
GROUPS_OF_32 = {"group_size": 32}


def rows_of(path, **options):
    source = open_source(path, Options(**options))
    return {layer: source.row(layer) for layer in source.layers}


def relative_error(values, weight):
    return float((values - weight).double().square().sum() / weight.double().square().sum())


@pytest.fixture(scope="session")
def weights(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    return {name: module.weight.detach() for name, module in model.named_modules() if hasattr(module, "weight")}


@pytest.mark.parametrize(("number_format", "bits"), [("int2", 2 + 18 / 32), ("nf3", 3 + 1), ("sym4", 4 + 16 / 32)])
def test_a_model_is_quantised_as_asked(tiny_model, weights, number_format, bits):
    rows = rows_of(tiny_model, quantization={"format": number_format, **GROUPS_OF_32})
    assert len(rows) == 14
    row, weight = rows[NAME], weights[NAME]
    chosen = get_format(number_format, "bfloat16")
    assert row.error == pytest.approx(relative_error(chosen.fake_quantize(weight, 32), weight), rel=1e-5)
    codes = chosen.quantize(weight, 32)[0]
    assert row.code_shares == tuple((codes == code).float().mean().item() for code in range(2**chosen.bits))
    assert (row.out_features, row.in_features, row.weights) == (64, 128, 64 * 128)
    assert row.std == pytest.approx(weight.std(correction=0).item(), rel=1e-5)
    assert row.absolute_maximum == weight.abs().max().item()
    assert row.bits_per_weight == bits
    assert row.maximum_kept is None
    assert row.output_error_before is None


def test_a_model_with_clip_ranges(tiny_model, clipped, weights):
    rows = rows_of(tiny_model, clip=clipped)
    ranges = bitdistiller.calibration.load_clip(clipped)
    weight, chosen = weights[NAME], get_format("int2", "bfloat16")
    groups = weight.unflatten(1, (-1, 32))
    cut = groups.clamp(ranges[f"{NAME}.min"], ranges[f"{NAME}.max"]).flatten(1)
    row = rows[NAME]
    assert row.error == pytest.approx(relative_error(chosen.fake_quantize(cut, 32), weight), rel=1e-5)
    assert row.error_unclipped == pytest.approx(relative_error(chosen.fake_quantize(weight, 32), weight), rel=1e-5)
    assert row.error != row.error_unclipped
    kept = ranges[f"{NAME}.max"] / groups.amax(-1, keepdim=True)
    assert row.maximum_kept == pytest.approx(kept.mean().item(), rel=1e-5)
    assert rows[SKIPPED].maximum_kept is None
    assert rows[SKIPPED].error == rows[SKIPPED].error_unclipped


def test_the_record_of_a_search_and_the_weights_say_the_same(tiny_model, clipped):
    searched, measured = rows_of(clipped), rows_of(tiny_model, clip=clipped)
    assert len(searched) == 10
    for name, row in searched.items():
        for field in ("maximum_kept", "maximum_kept_low", "maximum_kept_high", "minimum_kept", "minimum_kept_low"):
            assert getattr(row, field) == pytest.approx(getattr(measured[name], field), abs=1e-5), (name, field)
        assert (row.out_features, row.in_features) == (measured[name].out_features, measured[name].in_features)
        assert row.bits_per_weight == measured[name].bits_per_weight
    recorded = {layer["name"]: layer for layer in json.loads((clipped / "clip.json").read_text())["layers"]}
    assert searched[NAME].output_error_after == recorded[NAME]["error_after"]
    assert searched[NAME].std is None


def test_a_student_is_quantised_as_its_record_says(student, weights):
    row = rows_of(student)[NAME]
    expected = get_format("int3", "bfloat16").fake_quantize(weights[NAME], 32)
    assert row.error == pytest.approx(relative_error(expected, weights[NAME]), rel=1e-5)
    assert len(row.code_shares) == 8


@pytest.mark.parametrize("number_format", ["int2", "nf3"])
def test_a_packed_checkpoint(packed, tiny_model, weights, number_format):
    checkpoint = packed(number_format) / "checkpoint"
    row = rows_of(checkpoint, reference=tiny_model)[NAME]
    report = json.loads((packed(number_format) / "export.json").read_text())["layers"][NAME]
    assert row.bits_per_weight == report["bits_per_weight"]
    values = bitdistiller.load_model(checkpoint, dtype="float32").get_submodule(NAME).weight.detach()
    assert row.error == pytest.approx(relative_error(values, weights[NAME]), rel=1e-5)
    assert row.std == pytest.approx(values.std(correction=0).item(), rel=1e-5)
    assert rows_of(checkpoint)[NAME].error is None


def test_a_packed_checkpoint_has_the_codes_of_the_clipped_model(packed, clipped, tiny_model):
    stored, made = rows_of(packed("int2") / "checkpoint"), rows_of(tiny_model, clip=clipped)
    for name, row in stored.items():
        assert row.code_shares == made[name].code_shares
        assert row.entropy == made[name].entropy


def test_padded_groups(tiny_model):
    row = rows_of(tiny_model, quantization={"group_size": 48, "pad": True})[NAME]
    assert 0 < row.error < 1
    assert row.weights == 64 * 128


def test_the_row_of_all(tiny_model, weights):
    rows = rows_of(tiny_model, quantization=GROUPS_OF_32)
    everything = total(list(rows.values()))
    joined = torch.cat([weights[name].flatten() for name in rows])
    assert everything.weights == joined.numel()
    assert everything.std == pytest.approx(joined.std(correction=0).item(), rel=1e-5)
    assert everything.absolute_maximum == joined.abs().max().item()
    values = torch.cat([get_format("int2", "bfloat16").fake_quantize(weights[name], 32).flatten() for name in rows])
    assert everything.error == pytest.approx(relative_error(values, joined), rel=1e-5)
    assert sum(everything.code_shares) == pytest.approx(1)


def test_the_row_of_all_leaves_out_what_is_not_known():
    rows = [
        LayerRow("a", 1, 2, 2, maximum_kept=0.5, output_error_before=1.0, error=0.0, energy=0.0),
        LayerRow("b", 1, 6, 6, maximum_kept=0.9, output_error_before=2.0),
        LayerRow("c", 1, 4, 4),
    ]
    everything = total(rows)
    assert everything.maximum_kept == pytest.approx(0.8)
    assert everything.output_error_before == 3
    assert everything.error == 0
    assert (everything.std, everything.maximum_kept_low, everything.weights) == (None, None, 12)
