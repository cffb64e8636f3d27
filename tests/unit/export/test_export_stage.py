"""The stage: outputs, sizes, refusals, going on after a kill."""

import json
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_model, recipe
from transformers import AutoModelForCausalLM, GPT2Config

import bitdistiller
from bitdistiller.errors import InputError
from bitdistiller.export import files, stage
from bitdistiller.export.verify import VerificationError
from bitdistiller.formats import get_format

LAYERS, WEIGHTS = 14, 2 * (2 * 128 * 128 + 2 * 64 * 128 + 3 * 128 * 256)


def export(chosen, weights, output, clip=None, verify=False):
    stage.run(
        chosen, weights=weights, clip=clip, output=output, work=output.parent / "work", time_budget=None, verify=verify
    )
    return json.loads((output / "export.json").read_text())


@pytest.mark.parametrize(
    ("number_format", "dtype", "minimum", "extra"),
    [("int2", "bfloat16", 2 + 18 / 64, 0), ("int3", "float32", 3 + 19 / 64, 16 / 64), ("nf3", "bfloat16", 3.5, 0)],
)
def test_report_has_bits_per_weight_and_sizes(number_format, dtype, minimum, extra, model_directory, tmp_path, caplog):
    caplog.set_level("INFO")
    report = export(recipe(number_format, dtype=dtype), model_directory(), tmp_path / "out")
    assert report["quantised_weights"] == WEIGHTS
    assert len(report["layers"]) == LAYERS
    assert report["minimum_bits_per_weight"] == minimum
    shapes_and_padding = LAYERS * 256
    assert minimum + extra <= report["bits_per_weight"] <= minimum + extra + shapes_and_padding / WEIGHTS
    checkpoint = tmp_path / "out" / "checkpoint"
    assert report["file_bytes"] == sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    assert report["minimum_bytes"] <= report["file_bytes"] <= 1.1 * report["minimum_bytes"] + WEIGHTS * extra / 8
    assert report["weights"] == "base"
    assert report["verified"] == {"layers": LAYERS, "fresh_process": None}
    assert f"{number_format} at {report['bits_per_weight']:.3f} bits a weight" in caplog.text
    assert f"{report['file_bytes'] / 1e6:.1f} MB" in caplog.text


@pytest.mark.parametrize("number_format", ["int2", "nf3"])
def test_a_fresh_process_confirms_the_logits(number_format, student_directory, tmp_path):
    chosen = recipe("int2")
    weights = student_directory
    if number_format != "int2":
        chosen, weights = recipe(number_format, 128, "float32"), student_directory.parent / "base"
        make_model("qwen2").save_pretrained(weights)
    report = export(chosen, weights, tmp_path / "out", verify=True)
    found = report["verified"]["fresh_process"]
    assert found["logits_equal"]
    assert found["max_difference"] == 0
    assert report["weights"] == ("student" if number_format == "int2" else "base")


def test_directory_is_complete_and_readable_by_the_group(model_directory, tmp_path):
    export(recipe(), model_directory(), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "checkpoint").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "checkpoint",
        "export.json",
        "digest.json",
        "provenance.json",
    }
    for path in (tmp_path / "out").rglob("*"):
        assert path.stat().st_mode & stat.S_IRGRP, path


def test_clip_ranges_come_first(model_directory, tmp_path):
    name = "model.layers.0.mlp.down_proj"
    weight = load_file(model_directory() / "model.safetensors")[f"{name}.weight"]
    groups = weight.view(len(weight), -1, 64)
    ranges = {f"{name}.max": 0.6 * groups.amax(-1, keepdim=True), f"{name}.min": 0.5 * groups.amin(-1, keepdim=True)}
    (tmp_path / "clip").mkdir()
    save_file(ranges, tmp_path / "clip" / "clip.safetensors", metadata={"format": "int2", "group_size": "64"})
    report = export(recipe(dtype="float32"), model_directory(), tmp_path / "out", clip=tmp_path / "clip")
    assert report["weights"] == "clipped"
    clipped = groups.clamp(ranges[f"{name}.min"], ranges[f"{name}.max"]).view_as(weight)
    expected = get_format("int2", scale_dtype="bfloat16").fake_quantize(clipped, 64)
    model = bitdistiller.load_model(tmp_path / "out" / "checkpoint")
    assert torch.equal(model.get_submodule(name).weight, expected)
    for change, message in (("int3", "searched for format int2"), ("int2", "searched for group_size 64")):
        with pytest.raises(InputError, match=message):
            export(recipe(change, 32), model_directory(), tmp_path / "other", clip=tmp_path / "clip")
    with pytest.raises(InputError, match=r"clip\.safetensors: no such file"):
        export(recipe(), model_directory(), tmp_path / "other", clip=tmp_path / "out")


def test_large_models_are_sharded_and_a_killed_export_goes_on(model_directory, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_SHARD_BYTES", 25_000)
    quantise, seen = stage.Masters.quantized, []

    def dies(masters, layer):
        if len(seen) == 11:
            raise KeyboardInterrupt
        seen.append(layer)
        return quantise(masters, layer)

    monkeypatch.setattr(stage.Masters, "quantized", dies)
    with pytest.raises(KeyboardInterrupt):
        export(recipe(), model_directory(), tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint").exists()
    again = []
    monkeypatch.setattr(
        stage.Masters, "quantized", lambda masters, layer: (again.append(layer), quantise(masters, layer))[1]
    )
    export(recipe(), model_directory(), tmp_path / "out")
    written = again[:-LAYERS]
    assert 3 < len(written) < LAYERS
    assert again[-LAYERS:] == list(dict.fromkeys(seen + written))
    checkpoint = tmp_path / "out" / "checkpoint"
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in checkpoint.glob("*.safetensors")}
    assert len(set(index["weight_map"].values())) > 2
    assert not list((tmp_path / "work" / "state").glob("*.safetensors"))
    export(recipe(), model_directory(), tmp_path / "uninterrupted")
    for path in checkpoint.iterdir():
        assert path.read_bytes() == (tmp_path / "uninterrupted" / "checkpoint" / path.name).read_bytes(), path.name
    tokens = torch.arange(20)[None]
    models = [AutoModelForCausalLM.from_pretrained(checkpoint), bitdistiller.load_model(checkpoint)]
    assert torch.equal(models[0](tokens).logits, models[1](tokens).logits)


def test_a_damaged_file_is_not_finished(model_directory, tmp_path, monkeypatch):
    publish = files.ShardWriter.publish

    def damaging(writer, directory, stem):
        publish(writer, directory, stem)
        path = directory / f"{stem}.safetensors"
        tensors = load_file(path)
        tensors["model.layers.1.self_attn.o_proj.weight_packed"][5, 1] ^= 1 << 9
        path.unlink()
        save_file(tensors, path, metadata={"format": "pt"})

    monkeypatch.setattr(files.ShardWriter, "publish", damaging)
    with pytest.raises(VerificationError, match=r"layers\.1\.self_attn\.o_proj: codes differ"):
        export(recipe(), model_directory(), tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number_format": "int3"}, r"quantization\.format: int3 was asked for, but the student in .* is int2"),
        ({"group_size": 128}, r"quantization\.group_size: 128"),
        ({"scale_dtype": "float32"}, r"quantization\.scale_dtype: float32"),
    ],
)
def test_a_student_is_packed_only_as_it_was_trained(change, message, student_directory, tmp_path):
    with pytest.raises(InputError, match=message):
        export(recipe(**change), student_directory, tmp_path / "out")


def test_a_student_takes_no_clip_ranges(student_directory, tmp_path):
    with pytest.raises(InputError, match="clipped before training"):
        export(recipe(), student_directory, tmp_path / "out", clip=tmp_path)


def test_group_size_must_divide(model_directory, tmp_path):
    with pytest.raises(InputError, match=r"layers\.0\.self_attn\.q_proj: group_size 96 does not divide"):
        export(recipe(group_size=96), model_directory(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_quantised_weights_are_refused(model_directory, tmp_path):
    export(recipe(), model_directory(), tmp_path / "out")
    with pytest.raises(InputError, match=r"quantised already \(compressed-tensors\)"):
        export(recipe(), tmp_path / "out" / "checkpoint", tmp_path / "again")


def test_nothing_to_quantise_is_refused(tmp_path):
    config = GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=50, n_positions=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(InputError, match=r"linear layer"):
        export(recipe(), tmp_path / "gpt2", tmp_path / "out")


def test_missing_weights_are_named(tmp_path, model_directory):
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        export(recipe(), tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((model_directory() / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        export(recipe(), tmp_path / "bare", tmp_path / "out")
