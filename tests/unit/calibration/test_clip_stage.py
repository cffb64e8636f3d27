"""The stage `clip`: outputs, resumption, bad input."""

import json

import pytest
import torch
from helpers.tiny import SENTENCES
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from bitdistiller.calibration import apply_clip, load_clip, stage
from bitdistiller.calibration.prepare import is_skipped
from bitdistiller.config import Calibration, ClipRecipe, Quantization
from bitdistiller.errors import DeadlineReached, InputError
from bitdistiller.stages import verify

CLIPPED = ["self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def recipe(group_size=32, number_format="int2", **calibration):
    quantization = Quantization(format=number_format, group_size=group_size, scale_dtype="bfloat16")
    return ClipRecipe(quantization=quantization, calibration=Calibration(texts="demo", block_length=48, **calibration))


@pytest.fixture
def clip(tiny_model, tmp_path):
    """Run the stage into tmp_path/out."""

    def run(chosen=None, texts=lambda: SENTENCES * 8, output="out", **options):
        options = {"model": tiny_model, "work": None, "time_budget": None} | options
        stage.run(chosen or recipe(), texts=texts, output=tmp_path / output, **options)
        return tmp_path / output

    return run


def test_outputs(clip, tiny_model):
    output = clip()
    verify(output)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    names = [f"model.layers.{i}.{name}" for i in range(2) for name in CLIPPED]
    tensors = load_clip(output)
    assert tensors.keys() == {f"{name}.{end}" for name in names for end in ("max", "min")}
    for name in names:
        weight = model.get_submodule(name).weight
        assert tensors[f"{name}.max"].shape == (weight.shape[0], weight.shape[1] // 32, 1)
        assert tensors[f"{name}.max"].dtype == torch.float32
    with safe_open(output / "clip.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "int2"
    assert metadata["group_size"] == "32"
    assert metadata["scale_dtype"] == "bfloat16"
    report = json.loads((output / "clip.json").read_text())
    assert [layer["name"] for layer in report["layers"]] == names
    assert report["tokens"] == int(metadata["tokens"]) > 0
    for layer in report["layers"]:
        assert 0 < layer["error_after"] < layer["error_before"]
        assert 0.55 <= layer["minimum_ratio"] <= 1
        assert sum(layer["maximum_histogram"]) == layer["groups"]
    digest = json.loads((output / "digest.json").read_text())
    assert digest["counts"] == {"layers": 10, "tokens": report["tokens"]}


def test_clipped_weights_stay_within_their_ranges(clip, tiny_model):
    tensors = load_clip(clip(recipe(number_format="nf3")) / "clip.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    clamped = apply_clip(model, tensors)
    for name, tensor in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if layer in clamped:
            groups = before[name].unflatten(1, (-1, 32))
            assert torch.equal(tensor, groups.clamp(tensors[f"{layer}.min"], tensors[f"{layer}.max"]).flatten(1))
            assert not torch.equal(tensor, before[name])
        else:
            assert torch.equal(tensor, before[name])
    again = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_clip(model, tensors)
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_an_interrupted_run_goes_on_after_its_last_block(clip, monkeypatch):
    expected = clip(output="whole")
    searched, texts_read, original = [], [], stage.search

    def searching(weight, gram, number_format, group_size, name, options):
        if name.startswith("model.layers.1.mlp.up") and not interrupted:
            raise KeyboardInterrupt
        searched.append(name)
        return original(weight, gram, number_format, group_size, name, options)

    def texts():
        texts_read.append(True)
        return SENTENCES * 8

    interrupted = False
    monkeypatch.setattr(stage, "search", searching)
    with pytest.raises(KeyboardInterrupt):
        clip(texts=texts)
    interrupted = True
    searched.clear()
    output = clip(texts=texts)
    assert {name.split(".")[2] for name in searched} == {"1"}
    assert texts_read == [True]
    for name in ("clip.safetensors", "clip.json", "digest.json"):
        assert (output / name).read_bytes() == (expected / name).read_bytes()


def test_a_deadline_stops_between_blocks(clip, monkeypatch):
    checks = []

    def check(self, longest_step_seconds=0.0):
        checks.append(True)
        if len(checks) == 2:
            raise DeadlineReached("stop")

    with monkeypatch.context() as patch:
        patch.setattr("bitdistiller.stages.deadline.Deadline.check", check)
        with pytest.raises(DeadlineReached):
            clip()
    verify(clip())


def test_a_token_budget_and_other_layers(clip):
    report = json.loads((clip(recipe(tokens=48, skip=("mlp", "o_proj", "gate_proj"))) / "clip.json").read_text())
    assert report["tokens"] in range(48, 60)
    assert {layer["name"].rpartition(".")[2] for layer in report["layers"]} == {
        *("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
    }


@pytest.mark.parametrize(
    ("chosen", "texts", "message"),
    [
        (recipe(group_size=48), SENTENCES * 8, r"model\.layers\.0\.self_attn\.q_proj: group_size 48 does not divide"),
        (recipe(skip=("proj",)), SENTENCES * 8, "calibration.skip: proj leaves no layer to clip"),
        (recipe(), ["one"], "less than one sequence of 48"),
    ],
)
def test_bad_input(clip, chosen, texts, message):
    with pytest.raises(InputError, match=message):
        clip(chosen, lambda: texts)


def test_ranges_of_another_model_are_refused(clip, tiny_model, tmp_path):
    tensors, model = load_clip(clip()), AutoModelForCausalLM.from_pretrained(tiny_model)
    with pytest.raises(InputError, match=r"clip ranges: model\.layers\.9\.up: the model or the file does not have it"):
        apply_clip(model, tensors | {"model.layers.9.up.max": torch.zeros(1, 1, 1)})
    name = "model.layers.0.mlp.up_proj"
    narrow = {f"{name}.{end}": tensors[f"{name}.{end}"][:-1] for end in ("max", "min")}
    with pytest.raises(InputError, match=r"clip ranges: model\.layers\.0\.mlp\.up_proj: shape"):
        apply_clip(model, narrow)
    with pytest.raises(InputError, match=r"no such file; accepted: clip\.safetensors"):
        load_clip(tmp_path)


def test_patterns_are_sought_in_the_projection_alone():
    skipped = Calibration(texts="demo").skip
    names = [
        "self_attn.q_proj",
        "attention.query_key_value",
        "attn.Wqkv",
        "block_sparse_moe.experts.0.w1",
        "mlp.up_proj",
    ]
    assert [is_skipped(name, skipped) for name in names] == [True, True, True, False, False]
