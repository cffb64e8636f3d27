"""OneBit's packed layout: the same signs and vectors as trained, whichever way they lie in memory."""

import logging

import pytest
import torch
from helpers.tiny import make_model, make_tokenizer
from safetensors.torch import load_file, save_file

from bitdistiller import load_model
from bitdistiller.config import ConvertRecipe, ExportRecipe, OneBitStart, Quantization
from bitdistiller.distillation.onebit_start import start_onebit
from bitdistiller.distillation.student import skeleton
from bitdistiller.distillation.student_files import write_student
from bitdistiller.errors import InputError
from bitdistiller.export.chosen import open_masters
from bitdistiller.export.conversion.stage import run as convert
from bitdistiller.export.load import load_dense
from bitdistiller.export.registry import get_layout
from bitdistiller.export.stage import run
from bitdistiller.export.verify import VerificationError, compare_tensors
from bitdistiller.formats import pack_signs
from bitdistiller.inspection.sources import Options, open_source
from bitdistiller.layers import OneBitLinear, PackedOneBitLinear
from bitdistiller.stages.files import read_json

RECIPE = ExportRecipe(quantization={"format": "sign1"}, dtype="float32")
PLACES = {"work": None, "time_budget": None}
TOKENS = torch.arange(24).view(2, 12) % 100


def trained(seed=0, zeros=0):
    """A 1-bit model whose latent weights and vectors are no longer those of the start."""
    model = make_model(seed)
    start_onebit(model, OneBitStart())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in (module for module in model.modules() if isinstance(module, OneBitLinear)):
            layer.weight += 0.02 * torch.randn(layer.weight.shape, generator=generator)
            layer.weight_scale *= 1 + 0.1 * torch.randn(layer.weight_scale.shape, generator=generator)
            layer.weight.view(-1)[:zeros] = 0.0
    return model.eval()


def student_of(model, directory):
    directory.mkdir(parents=True)
    write_student(skeleton(model), model.state_dict(), directory, Quantization(format="sign1"))
    make_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("signs")
    model = trained()
    student = student_of(model, root / "student")
    run(RECIPE, weights=student, clip=None, output=root / "export", work=None, time_budget=None)
    return model, student, root / "export"


def logits(model):
    with torch.inference_mode():
        return model(TOKENS).logits


def test_the_file_has_the_bits_and_the_vectors_as_they_were_trained(exported):
    model, _, output = exported
    tensors = load_file(output / "checkpoint" / "signs.safetensors")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, OneBitLinear)}
    for name, layer in layers.items():
        assert torch.equal(tensors[f"{name}.weight_signs"], pack_signs(layer.weight.detach()))
        assert torch.equal(tensors[f"{name}.weight_scale"], layer.weight_scale)
        assert torch.equal(tensors[f"{name}.input_factor"], layer.input_factor)
    rest = {name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in layers}
    assert tensors.keys() == rest | {
        f"{n}.{k}" for n in layers for k in ("weight_signs", "weight_scale", "input_factor")
    }
    assert not (output / "checkpoint" / "model.safetensors").exists()  # plain transformers must not open it


def test_the_report_counts_bits_of_signs_and_vectors(exported):
    model, _, output = exported
    report = read_json(output / "export.json")
    shapes = [layer.weight.shape for layer in model.modules() if isinstance(layer, OneBitLinear)]
    weights = sum(rows * columns for rows, columns in shapes)
    vectors = sum(rows + columns for rows, columns in shapes)
    assert report["bits_per_weight"] == pytest.approx(1 + 32 * vectors / weights)
    assert report["minimum_bits_per_weight"] == pytest.approx(1 + 16 * vectors / weights)
    assert report["verified"]["zero_signs"] == 0
    assert report["verified"]["fresh_process"]["logits_equal"] is True


def test_student_checkpoint_and_packed_model_answer_alike(exported):
    model, student, output = exported
    expected = logits(model)
    assert torch.equal(logits(load_model(student)), expected)
    loaded = load_model(output / "checkpoint")
    assert torch.equal(logits(loaded), expected)
    resident = load_model(output / "checkpoint", packed=True)
    assert sum(isinstance(module, PackedOneBitLinear) for module in resident.modules()) == 14
    torch.testing.assert_close(logits(resident), expected, rtol=1e-4, atol=1e-4)


def test_vectors_stay_float32_in_a_bfloat16_model(exported):
    _, _, output = exported
    for packed in (False, True):
        layer = load_model(output / "checkpoint", dtype="bfloat16", packed=packed).model.layers[0].mlp.up_proj
        assert layer.weight_scale.dtype == layer.input_factor.dtype == torch.float32


def test_zeros_are_counted_and_said(tmp_path, caplog):
    student = student_of(trained(zeros=3), tmp_path / "student")
    with caplog.at_level(logging.WARNING):
        run(RECIPE, weights=student, clip=None, output=tmp_path / "export", work=None, time_budget=None, verify=False)
    assert read_json(tmp_path / "export" / "export.json")["verified"]["zero_signs"] == 3 * 14
    assert "42 latent weights are exactly 0; packed, they count as +1" in caplog.text


def test_a_flipped_bit_is_found(exported, tmp_path):
    _, student, output = exported
    for path in (output / "checkpoint").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "signs.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight_signs"][0, 0] ^= 4
    save_file(tensors, tmp_path / "signs.safetensors")
    masters = open_masters(student, RECIPE.quantization)
    with pytest.raises(VerificationError, match=r"layers.1.mlp.up_proj: codes differ"):
        compare_tensors(tmp_path, masters, get_layout(RECIPE))


def test_only_students_of_the_method_are_packed(exported, tmp_path, tiny_model):
    with pytest.raises(InputError, match="no student of method onebit"):
        run(RECIPE, weights=tiny_model, clip=None, output=tmp_path / "a", work=None, time_budget=None)
    _, student, _ = exported
    recipe = ExportRecipe(quantization={"format": "int2"})
    with pytest.raises(InputError, match=r"quantization.format: int2 was asked for, but the student .* is sign1"):
        run(recipe, weights=student, clip=None, output=tmp_path / "b", work=None, time_budget=None)
    broken = student_of(trained(), tmp_path / "student")
    vectors = load_file(broken / "vectors.safetensors")
    vectors.pop("model.layers.0.mlp.up_proj.input_factor")
    save_file(vectors, broken / "vectors.safetensors")
    with pytest.raises(InputError, match=r"up_proj.input_factor is missing; train again"):
        run(RECIPE, weights=broken, clip=None, output=tmp_path / "c", work=None, time_budget=None)


def test_what_reads_weights_alone_refuses_signs(exported, tmp_path):
    _, student, output = exported
    checkpoint = output / "checkpoint"
    for layout in ("dense", "gptq-v2", "gguf-q4_1"):
        with pytest.raises(InputError, match="no other layout holds sign1, whose layers are more than a weight"):
            convert(ConvertRecipe(layout=layout), checkpoint=checkpoint, output=tmp_path / layout, **PLACES)
    for path in (student, checkpoint):
        with pytest.raises(InputError, match=r"format sign1 is more than weights.*accepted: engine: transformers"):
            load_dense(path, "float32")
        with pytest.raises(InputError, match="format sign1 has no groups"):
            open_source(path, Options({}, None, None))
