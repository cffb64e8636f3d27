"""The stage warm-start: block-wise reconstruction, its files, and going on after a kill."""

import json

import pytest
import torch
from helpers.tiny import make_model, write_model
from helpers.tokens import write_token_file
from reference.warm_start import warm_start as naive
from safetensors.torch import save_file

from bitdistiller.config import WarmStartRecipe
from bitdistiller.distillation.warm_start import apply_warm_start, stage
from bitdistiller.distillation.warm_start.rows import training_rows
from bitdistiller.errors import DeadlineReached, InputError
from bitdistiller.formats import get_format, trained_grid
from bitdistiller.layers import TensorFiles, quantize_linears, quantized_linear_names
from bitdistiller.stages.deadline import Deadline

LENGTHS = [20, 31, 7, 30, 16, 25, 31, 9, 22, 18, 28, 24, 12, 30, 27]


def make_recipe(train_scales=True, scale_dtype="float32", quantization=None, **options):
    settings = {"samples": 8, "epochs": 3, "batch_size": 4, "learning_rate": 2e-3, "scale_learning_rate": 1e-3}
    return WarmStartRecipe(
        quantization={"format": "int2", "group_size": 32, "scale_dtype": scale_dtype} | (quantization or {}),
        warm_start=settings | {"zero_point_learning_rate": 2e-2} | options,
        train_scales=train_scales,
        precision="float32",
        max_length=32,
    )


@pytest.fixture
def inputs(tmp_path):
    write_token_file(tmp_path / "tokens", LENGTHS)
    return {"model": write_model(tmp_path / "model"), "tokens": tmp_path / "tokens", "clip": None}


def run(recipe, inputs, output, **changes):
    stage.run(
        recipe, **inputs, output=output, work=output.with_name(f"{output.name}.work"), time_budget=None, **changes
    )
    return json.loads((output / "blocks.json").read_text())


def student(train_scales=True, group_size=32):
    model = make_model()
    quantize_linears(model, get_format("int2"), group_size, train_scales=train_scales)
    return model


def contents(output):
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "provenance.json")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def test_rows_are_the_training_part_cut_into_whole_batches(inputs):
    file = write_token_file(inputs["tokens"].with_name("more"), LENGTHS)
    rows = training_rows(file, make_recipe(), 64)
    ids = torch.cat([file.ids(sample) for sample in range(3, len(LENGTHS))])
    assert torch.equal(rows, ids[: 8 * 32].view(8, 32))
    assert training_rows(file, make_recipe(samples=7), 16).shape == (4, 16)
    with pytest.raises(InputError, match=r"^warm_start: 8 sequences of 32 tokens are less than one batch"):
        training_rows(file, make_recipe(batch_size=9), 64)


@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
def test_it_is_the_naive_reconstruction(scale_dtype, inputs, tmp_path):
    report = run(make_recipe(scale_dtype=scale_dtype), inputs, tmp_path / "out")
    file = write_token_file(tmp_path / "again", LENGTHS)
    model, grid = make_model(), trained_grid(get_format("int2", scale_dtype))
    start = {name: grid.start(model.get_submodule(name).weight, 32) for name in quantized_linear_names(model)}
    expected, errors = naive(
        model,
        training_rows(file, make_recipe(), 64),
        start,
        batch_size=4,
        epochs=3,
        rates=(2e-3, 1e-3, 2e-2),
        bits=2,
        group_size=32,
        scale_dtype={"float32": None, "bfloat16": torch.bfloat16}[scale_dtype],
    )
    for block, (before, after) in zip(report["blocks"], errors, strict=True):
        assert block["error_before"] == pytest.approx(before, rel=1e-4)
        assert block["error_after"] == pytest.approx(after, rel=1e-2)
        assert block["error_after"] < 0.9 * block["error_before"]
    files = TensorFiles(tmp_path / "out" / "start", "start")
    assert set(files.names) == set(expected)
    for name, tensor in expected.items():
        assert ((files.read(name) - tensor).abs() < 1e-4).float().mean() > 0.98, name


def test_the_report_says_what_it_took(inputs, tmp_path):
    report = run(make_recipe(), inputs, tmp_path / "out")
    assert {key: report[key] for key in report if key != "blocks"} == {
        "sequences": 8,
        "length": 32,
        "steps_per_block": 6,
        "tokens_per_block": 768,
    }
    assert [block["block"] for block in report["blocks"]] == ["model.layers.0", "model.layers.1"]
    counts = json.loads((tmp_path / "out" / "digest.json").read_text())["counts"]
    assert counts == {key: report[key] for key in report if key != "blocks"} | {"blocks": 2, "train_scales": True}


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_an_interrupted_run_ends_with_the_same_bytes(stop, inputs, tmp_path, monkeypatch):
    run(make_recipe(), inputs, tmp_path / "whole")
    check, calls = Deadline.check, []

    def due(self, *arguments):
        calls.append(self)
        if len(calls) == stop:
            raise self.reached()
        check(self, *arguments)

    monkeypatch.setattr(Deadline, "check", due)
    with pytest.raises(DeadlineReached):
        run(make_recipe(), inputs, tmp_path / "out")
    assert not (tmp_path / "out" / "digest.json").exists()
    done = len(list((tmp_path / "out.work" / "state").glob("block-*.safetensors")))
    assert done == (stop >= 8)
    run(make_recipe(), inputs, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("train_scales", [True, False])
def test_a_student_starts_there(train_scales, inputs, tmp_path):
    run(make_recipe(train_scales=train_scales), inputs, tmp_path / "out")
    model, plain = student(train_scales), student(train_scales)
    tokens = torch.arange(3, 60).view(3, 19)
    names = apply_warm_start(model, tmp_path / "out")
    assert len(names) == 2 * (7 * (3 if train_scales else 1) + 2)
    with torch.no_grad():
        target = make_model()(tokens).logits.log_softmax(-1)
        distance = [(m(tokens).logits.log_softmax(-1) - target).square().mean() for m in (model, plain)]
    assert distance[0] < distance[1]


def test_clip_ranges_come_first(inputs, tmp_path):
    name = "model.layers.1.mlp.up_proj"
    weight = make_model().get_submodule(name).weight.detach().view(128, 2, 32)
    ranges = {f"{name}.max": 0.5 * weight.amax(-1, keepdim=True), f"{name}.min": 0.5 * weight.amin(-1, keepdim=True)}
    save_file(ranges, tmp_path / "clip.safetensors")
    run(
        make_recipe(learning_rate=1e-12, scale_learning_rate=1e-12, zero_point_learning_rate=1e-12),
        inputs,
        tmp_path / "a",
    )
    clipped = inputs | {"clip": tmp_path / "clip.safetensors"}
    tiny = {"learning_rate": 1e-12, "scale_learning_rate": 1e-12, "zero_point_learning_rate": 1e-12}
    run(make_recipe(**tiny), clipped, tmp_path / "b")
    a, b = (TensorFiles(tmp_path / key / "start", "start") for key in "ab")
    changed = [key for key in a.names if not torch.allclose(a.read(key), b.read(key), atol=1e-6)]
    assert set(changed) <= {f"{name}.{kind}" for kind in ("weight", "scale", "zero_point")}
    assert torch.allclose(
        b.read(f"{name}.weight").view(128, 2, 32), weight.clamp(*reversed(ranges.values())), atol=1e-6
    )


def test_another_student_is_refused(inputs, tmp_path):
    run(make_recipe(), inputs, tmp_path / "trained")
    run(make_recipe(train_scales=False), inputs, tmp_path / "plain")
    with pytest.raises(InputError, match=r"start: model\.layers\.0\.mlp\.down_proj\.scale is no parameter"):
        apply_warm_start(student(train_scales=False), tmp_path / "trained")
    with pytest.raises(InputError, match=r"scale is missing; it was made without train_scales"):
        apply_warm_start(student(), tmp_path / "plain")
    with pytest.raises(InputError, match=r"scale: shape \(64, 4\); this student needs \(64, 2\)"):
        apply_warm_start(student(group_size=64), tmp_path / "trained")


def test_formats_without_such_a_grid_are_refused():
    with pytest.raises(ValueError, match=r"train_scales: nf3 has no scales to train; accepted: int2, int3, int4"):
        make_recipe(quantization={"format": "nf3"})
    make_recipe(train_scales=False, quantization={"format": "nf3"})
