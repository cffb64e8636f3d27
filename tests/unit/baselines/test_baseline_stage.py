"""What a library chose reaches the evaluation bit for bit, or the table says why there is nothing."""

import json

import pytest
import torch
from helpers import fake_library
from transformers import AutoModelForCausalLM

from bitdistiller import load_model
from bitdistiller.baselines.base import Result
from bitdistiller.baselines.registry import BASELINES
from bitdistiller.config import METHODS, EvaluateRecipe, ExportRecipe
from bitdistiller.errors import InputError
from bitdistiller.evaluation.stage import run as evaluate
from bitdistiller.export.stage import run as export


def pack(directory, tmp_path, format="int2", scale_dtype="bfloat16", clip=None):
    quantization = {"format": format, "group_size": 64, "scale_dtype": scale_dtype}
    recipe = ExportRecipe(quantization=quantization, dtype=scale_dtype)
    options = {"clip": clip, "time_budget": None, "verify": False}
    export(recipe, weights=directory / "quantised", output=tmp_path / "e", work=tmp_path / "e.work", **options)
    return tmp_path / "e"


def expected_model(tiny_model, scale_dtype, format):
    """The tiny model with every weight that the fake library would choose."""
    from bitdistiller.formats import get_format
    from bitdistiller.layers import quantized_linear_names

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=getattr(torch, scale_dtype)).eval()
    for name in quantized_linear_names(model):
        weight = model.get_submodule(name).weight
        weight.data = get_format(format, scale_dtype=scale_dtype).fake_quantize(weight.data, 64)
    model.get_parameter(fake_library.NORM).data.mul_(2)
    return model


def test_every_library_method_is_registered():
    assert set(BASELINES) == {name for name, method in METHODS.items() if method.baseline}


@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("format", ["int2", "int3", "int4"])
def test_the_packed_model_is_what_the_library_chose(baseline, tiny_model, tmp_path, format, scale_dtype):
    directory = baseline(format, scale_dtype)
    report = json.loads((directory / "baseline.json").read_text())
    assert (report["method"], report["changed_others"], report["reason"]) == ("gptq", 1, None)
    packed = pack(directory, tmp_path, format, scale_dtype)
    expected = expected_model(tiny_model, scale_dtype, format).state_dict()
    found = load_model(packed / "checkpoint").state_dict()
    for name, tensor in found.items():
        assert torch.equal(tensor + 0.0, expected[name] + 0.0), name
    assert json.loads((packed / "export.json").read_text())["weights"] == "baseline"


def test_plain_transformers_does_not_take_the_chosen_values_for_a_model(baseline):
    with pytest.raises(OSError, match="safetensors"):
        AutoModelForCausalLM.from_pretrained(baseline() / "quantised")


def test_another_quantization_or_clip_ranges_are_refused(baseline, tmp_path):
    directory = baseline("int2")
    with pytest.raises(InputError, match=r"quantization\.format: int3 was asked for, but .* are int2"):
        pack(directory, tmp_path, "int3")
    with pytest.raises(InputError, match="a library's, quantised already; drop it"):
        pack(directory, tmp_path, "int2", clip=tmp_path)


def test_a_group_size_that_does_not_divide_is_no_result(baseline):
    with pytest.raises(InputError, match="group_size 48 does not divide"):
        baseline(group_size=48)


def refuse(task):
    raise ValueError("2 bits are not supported.\nSee the documentation.")


def broken(task):
    result = original(task)

    def layer(name):
        chosen = result.layer(name)
        return chosen._replace(scale=chosen.scale * float("nan"))

    return Result(task.model, layer)


original = fake_library.quantise


@pytest.mark.parametrize(
    ("quantise", "reason"),
    [(refuse, "2 bits are not supported."), (broken, "values of model.layers.0.self_attn.q_proj are not finite")],
)
def test_a_refusal_reaches_the_metrics(baseline, library, tmp_path, quantise, reason):
    library(quantise)
    directory = baseline()
    reason = f"torch {torch.__version__}: {reason}"
    assert json.loads((directory / "baseline.json").read_text())["reason"] == reason
    packed = pack(directory, tmp_path)
    assert json.loads((packed / "export.json").read_text())["bits_per_weight"] is None
    evaluation = {"kind": "perplexity", "dataset": "wikitext2"}
    recipe = EvaluateRecipe(name="ppl", evaluation=evaluation)
    evaluate(recipe, model=packed / "checkpoint", output=tmp_path / "m", work=tmp_path / "m.work")
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())["metrics"]
    assert metrics["perplexity"]["value"] is None
    assert metrics["perplexity"]["reason"] == reason
    assert (tmp_path / "m" / "predictions.jsonl").read_text() == ""
    with pytest.raises(InputError, match="holds no model"):
        load_model(packed / "checkpoint")


def test_an_error_that_is_no_refusal_is_a_failure(baseline, library):
    def crash(task):
        raise RuntimeError("out of memory")

    library(crash)
    with pytest.raises(RuntimeError, match="out of memory"):
        baseline()


def test_a_weight_off_the_library_s_own_grid_is_a_failure(baseline, library):
    def off(task):
        result = original(task)

        def layer(name):
            chosen = result.layer(name)
            return chosen._replace(weight=chosen.weight * 1.5)

        return Result(task.model, layer)

    library(off)
    with pytest.raises(RuntimeError, match="do not give the library's weight"):
        baseline()


def test_a_library_that_is_not_installed(baseline, monkeypatch):
    monkeypatch.setattr(fake_library, "LIBRARIES", ("no-such-library",))
    with pytest.raises(InputError, match="no-such-library is not installed here; `make baselines`"):
        baseline()
