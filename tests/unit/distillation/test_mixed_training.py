"""Method llm-qat: its loss and its runs, from the full-precision model to a checkpoint that was read back."""

import pytest
import torch
from helpers.mixes import make_recipe
from helpers.trainings import assert_same
from pydantic import ValidationError
from safetensors.torch import load_file

from bitdistiller import load_model
from bitdistiller.config import ExportRecipe
from bitdistiller.errors import InputError
from bitdistiller.export.stage import run as export
from bitdistiller.layers import MixedLinear
from bitdistiller.stages.files import read_json

PRESET = {"loss": "forward", "reduction": "sequence_sum", "schedule": "cosine"}


def recipe(bits="4-8-4", **changes):
    return make_recipe(quantization={"format": bits}, **{**PRESET, **changes})


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("mixed") / "train", recipe=recipe())


def test_what_a_run_leaves(finished, tiny_model):
    before, after = load_file(tiny_model / "model.safetensors"), load_file(finished / "student" / "model.safetensors")
    assert read_json(finished / "student" / "bitdistiller.json") == {"format": "4-8-4"}
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)  # embeddings, norms and head too


def test_a_killed_run_goes_on(cut, train, finished, tmp_path):
    output = tmp_path / "train"
    cut(output, 8, recipe=recipe())
    train(output, recipe=recipe())
    assert_same(output, finished)


@pytest.mark.parametrize("bits", ["4-8-4", "8-8-8", "2-16-32"])
def test_the_checkpoint_answers_as_the_student(train, finished, tmp_path, bits):
    trained = finished if bits == "4-8-4" else train(tmp_path / "train", recipe=recipe(bits, max_steps=4))
    chosen = ExportRecipe(quantization={"format": bits}, dtype="float32")
    export(chosen, weights=trained / "student", clip=None, output=tmp_path / "export", work=None, time_budget=None)
    report = read_json(tmp_path / "export" / "export.json")
    assert report["verified"]["fresh_process"]["logits_equal"] is True
    assert int(bits[0]) < report["minimum_bits_per_weight"] < report["bits_per_weight"] < int(bits[0]) + 2.5
    tokens = torch.arange(24).view(2, 12) % 100
    student, packed = load_model(trained / "student"), load_model(tmp_path / "export" / "checkpoint")
    assert sum(isinstance(module, MixedLinear) for module in packed.modules()) == 14
    with torch.inference_mode():
        assert torch.equal(student(tokens).logits, packed(tokens).logits)
    config = read_json(tmp_path / "export" / "checkpoint" / "config.json")["quantization_config"]
    assert "-".join(str(config[f"{what}_bits"]) for what in ("weights", "activations", "cache")) == bits


def test_no_kernel_keeps_them_packed(train, finished, tmp_path):
    chosen = ExportRecipe(quantization={"format": "4-8-4"}, dtype="float32")
    places = {"clip": None, "work": None, "time_budget": None, "verify": False}
    export(chosen, weights=finished / "student", output=tmp_path / "export", **places)
    with pytest.raises(InputError, match="format 4-8-4 has no kernel"):
        load_model(tmp_path / "export" / "checkpoint", packed=True)


def test_bfloat16_masters_stand_still_where_float32_ones_move(train, tiny_model, tmp_path):
    """At 2e-5 an update is less than half a step of bfloat16 for weights of 2^-7 and more (spec, part B4)."""
    found = {}
    for masters in ("float32", "bfloat16"):
        chosen = recipe(masters=masters, learning_rate=2e-5, max_steps=4)
        student = train(tmp_path / masters, recipe=chosen) / "student"
        found[masters] = load_file(student / "model.safetensors")
    assert {tensor.dtype for tensor in found["bfloat16"].values()} == {torch.bfloat16}
    start = load_file(tiny_model / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    large = start[name].abs() >= 0.25
    assert (found["float32"][name] != start[name])[large].float().mean() > 0.9
    assert torch.equal(found["bfloat16"][name][large], start[name].to(torch.bfloat16)[large])


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ("9-8-4", "9 bits of weights; accepted: 1 to 8"),
        ("4-2-4", "2 bits of activations; accepted: 3 to 16, or 32"),
        ("4-8-1", "1 bits of cache; accepted: 2 to 16, or 32"),
    ],
)
def test_bits_that_there_are_not_are_refused(bits, message):
    with pytest.raises(ValidationError, match=message):
        recipe(bits)


def test_narrow_masters_are_for_some_engines():
    with pytest.raises(ValidationError, match="masters: bfloat16; accepted with engine auto"):
        recipe(masters="bfloat16", engine="zero3")
