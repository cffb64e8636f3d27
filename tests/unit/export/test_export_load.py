"""`load_model` on every directory this project writes, and on damaged ones."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import pack, recipe
from transformers import AutoModelForCausalLM

import bitdistiller
from bitdistiller.errors import InputError
from bitdistiller.formats import get_format
from bitdistiller.layers import bake_linears, quantize_linears

TOKENS = torch.randint(200, (2, 16), generator=torch.Generator().manual_seed(13))


def logits(model):
    with torch.inference_mode():
        return model(TOKENS).logits


def baked(directory, number_format, group_size, dtype):
    """The fake-quantised model made by swapping layers, not by this room."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    quantize_linears(model, get_format(number_format, scale_dtype="bfloat16", pad=True), group_size)
    bake_linears(model)
    plain = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    plain.load_state_dict(model.state_dict())
    return plain


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("name", "number_format", "group_size"),
    [
        ("llama", "nf3", 64),
        ("llama", "nf3", 128),
        ("llama-tied", "nf2", 32),
        ("qwen2", "nf4", 64),
        ("llama", "int3", 64),
        ("llama", "sym4", 64),
        ("qwen3", "sym8", 128),
        ("llama", "int2", 96),
        ("llama-tied", "nf3", 96),
    ],
)
def test_packed_equals_the_fake_quantised_model(name, number_format, group_size, dtype, model_directory, tmp_path):
    chosen = recipe(number_format, group_size, dtype, pad=128 % group_size > 0)
    path = pack(model_directory(name), chosen, tmp_path / "packed")
    model = bitdistiller.load_model(path)
    expected = baked(model_directory(name), number_format, group_size, getattr(torch, dtype))
    assert model.dtype == getattr(torch, dtype)
    assert type(model) is type(expected)
    assert not model.training
    for (key, ours), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs), key
    assert torch.equal(logits(model), logits(expected))


def test_sharded_lookup_loads_like_a_single_file(model_directory, tmp_path):
    single = pack(model_directory(), recipe("nf3"), tmp_path / "single")
    sharded = pack(model_directory(), recipe("nf3"), tmp_path / "sharded", limit=40_000)
    assert len(list(sharded.glob("lookup-*-of-*.safetensors"))) > 2
    assert torch.equal(logits(bitdistiller.load_model(sharded)), logits(bitdistiller.load_model(single)))


def test_a_student_is_fake_quantised_and_never_its_masters(student_directory, model_directory):
    student = bitdistiller.load_model(student_directory)
    assert student.dtype == torch.float32
    assert torch.equal(logits(student), logits(baked(model_directory(), "int2", 64, torch.float32)))
    masters = AutoModelForCausalLM.from_pretrained(student_directory)
    assert not torch.allclose(logits(student), logits(masters), atol=1e-2)
    weight = student.model.layers[0].mlp.up_proj.weight
    assert max(len(group.unique()) for group in weight.view(-1, 64)) <= 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_a_student_and_its_packed_checkpoint_score_the_same(dtype, student_directory, tmp_path):
    packed = pack(student_directory, recipe("int2"), tmp_path / "packed")
    assert torch.equal(
        logits(bitdistiller.load_model(student_directory, dtype=dtype, device="cpu")),
        logits(bitdistiller.load_model(packed)),
    )


def test_a_base_model_is_loaded_as_it_is(model_directory):
    expected = AutoModelForCausalLM.from_pretrained(model_directory(), dtype=torch.bfloat16)
    assert torch.equal(logits(bitdistiller.load_model(model_directory(), dtype="bfloat16")), logits(expected))


def test_rotary_frequencies_stay_float32_in_bfloat16(student_directory):
    model = bitdistiller.load_model(student_directory, dtype="bfloat16")
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_generation_defaults_come_along(model_directory, tmp_path):
    path = pack(model_directory(), recipe("nf3"), tmp_path / "packed")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": 17, "do_sample": False}))
    assert bitdistiller.load_model(path).generation_config.eos_token_id == 17


@pytest.mark.parametrize(
    ("number_format", "stem", "lost"),
    [
        ("nf3", "lookup", "model.layers.1.mlp.up_proj.weight_codes"),
        ("nf3", "lookup", "model.norm.weight"),
        ("int2", "model", "model.norm.weight"),
    ],
)
def test_a_missing_tensor_is_an_error(number_format, stem, lost, model_directory, tmp_path):
    path = pack(model_directory(), recipe(number_format), tmp_path / "packed")
    tensors = load_file(path / f"{stem}.safetensors")
    del tensors[lost]
    save_file(tensors, path / f"{stem}.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="missing"):
        bitdistiller.load_model(path)


def test_an_unknown_tensor_is_an_error(model_directory, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(model_directory(), path)
    tensors = load_file(path / "model.safetensors") | {"model.layers.9.extra": torch.zeros(2)}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"unexpected keys: model\.layers\.9\.extra"):
        bitdistiller.load_model(path)


def test_a_directory_without_a_model_is_named(tmp_path, model_directory):
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        bitdistiller.load_model(tmp_path)
    shutil.copytree(model_directory(), tmp_path / "checkpoint")
    with pytest.raises(InputError, match=r"did you mean .*checkpoint"):
        bitdistiller.load_model(tmp_path)
