"""Students whose scales and zero points were trained: written, loaded by anyone, packed."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_model, pack, recipe
from transformers import AutoModelForCausalLM

from bitdistiller import load_model
from bitdistiller.distillation.student_files import split_state, write_student
from bitdistiller.errors import InputError
from bitdistiller.export import stage
from bitdistiller.export.masters import Masters
from bitdistiller.formats import get_format
from bitdistiller.layers import bake_linears, quantize_linears

TOKENS = torch.arange(24).view(2, 12)


def trained_student(name, chosen):
    """A fake-quantised model whose grids have moved away from those of its weights."""
    model, quantization = make_model(name), chosen.quantization
    number_format = get_format(quantization.format, quantization.scale_dtype, pad=quantization.pad)
    quantize_linears(model, number_format, quantization.group_size, train_scales=True)
    generator = torch.Generator().manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        noise = torch.rand(parameter.shape, generator=generator)
        if parameter_name.endswith(".scale"):
            parameter.data *= 0.7 + 0.6 * noise
        if parameter_name.endswith(".zero_point"):
            parameter.data += 4 * noise - 2
    return model


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """`students(name, recipe)`: (directory of a student with trained grids, logits it was trained to give)."""

    def write(name="llama", chosen=None):
        chosen = chosen or recipe()
        model = trained_student(name, chosen)
        directory = tmp_path_factory.mktemp("trained") / "student"
        directory.mkdir()
        write_student(model, model.state_dict(), directory, chosen.quantization)
        bake_linears(model)
        with torch.no_grad():
            return directory, model.eval()(TOKENS).logits

    return write


@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2"])
def test_a_student_loads_with_the_values_it_was_trained_with(name, students):
    directory, logits = students(name, recipe(dtype="float32"))
    with torch.no_grad():
        assert torch.equal(load_model(directory, "float32")(TOKENS).logits, logits)


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_transformers_loads_the_masters_without_a_warning(name, students, caplog):
    directory, _ = students(name)
    with caplog.at_level(logging.WARNING):
        model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(info.values())
    assert not caplog.records
    masters = make_model(name).state_dict()
    assert all(torch.equal(tensor, masters[key]) for key, tensor in model.state_dict().items())


def test_files_of_a_student(students):
    directory, _ = students()
    grids = load_file(directory / "scales.safetensors")
    assert len(grids) == 2 * 14
    assert grids["model.layers.1.mlp.down_proj.zero_point"].shape == (128, 4)
    assert {tensor.dtype for tensor in grids.values()} == {torch.float32}
    assert not set(grids) & set(load_file(directory / "model.safetensors"))
    assert json.loads((directory / "bitdistiller.json").read_text()) == {
        "format": "int2",
        "group_size": 64,
        "scale_dtype": "bfloat16",
        "pad": False,
        "train_scales": True,
    }


def test_a_student_without_trained_grids_is_as_before(tmp_path):
    model = make_model("llama")
    masters, grids = split_state(model.state_dict())
    assert masters.keys() == model.state_dict().keys()
    assert grids == {}
    write_student(model, model.state_dict(), tmp_path, recipe().quantization)
    assert not (tmp_path / "scales.safetensors").exists()
    assert "train_scales" not in json.loads((tmp_path / "bitdistiller.json").read_text())
    assert Masters(tmp_path, recipe().quantization).origin == "student"


@pytest.mark.parametrize(("number_format", "dtype"), [("int2", "bfloat16"), ("int3", "float32")])
@pytest.mark.parametrize("scale_dtype", ["bfloat16", "float32"])
def test_packed_values_are_those_of_training(number_format, dtype, scale_dtype, students, tmp_path):
    chosen = recipe(number_format, dtype=dtype, scale_dtype=scale_dtype)
    directory, logits = students("llama", chosen)
    masters = Masters(directory, chosen.quantization)
    packed = load_model(pack(directory, chosen, tmp_path / "packed"), dtype)
    for layer in masters.layers:
        expected = masters.fake_quantized(layer, getattr(torch, dtype))
        assert torch.equal(packed.get_submodule(layer).weight, expected)
        assert not torch.equal(expected, masters._format.fake_quantize(masters.weight(layer), 64).to(expected.dtype))
    if dtype == "float32":
        with torch.no_grad():
            assert torch.equal(packed(TOKENS).logits, logits)


def test_the_stage_packs_and_verifies(students, tmp_path):
    directory, _ = students()
    stage.run(recipe(), weights=directory, clip=None, output=tmp_path / "out", work=tmp_path / "work", time_budget=None)
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert report["weights"] == "student"
    assert report["verified"]["fresh_process"]["logits_equal"]


def test_a_missing_or_foreign_file_of_scales_is_an_error(students):
    directory, _ = students()
    path = directory / "scales.safetensors"
    grids = load_file(path)
    path.unlink()
    with pytest.raises(InputError, match=r"no scales\.safetensors"):
        Masters(directory, recipe().quantization)
    save_file({name: tensor for name, tensor in grids.items() if "layers.0.mlp.up_proj.scale" not in name}, path)
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.up_proj\.scale is missing from it; train again"):
        Masters(directory, recipe().quantization)
