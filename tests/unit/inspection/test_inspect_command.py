"""`bitdistiller inspect`: what it prints, writes and refuses."""

import csv
import json
import logging
import re

import pytest
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file

from bitdistiller import cli
from bitdistiller.inspection.inspect import inspect
from bitdistiller.inspection.plot import clip_ratios
from bitdistiller.inspection.rows import LayerRow
from bitdistiller.inspection.sources import Options


@pytest.fixture
def call(monkeypatch, capsys):
    """`call(*arguments)`: exit code, standard output and standard error of `bitdistiller inspect`."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["bitdistiller", "inspect", *map(str, arguments)])
        monkeypatch.setattr(cli, "_quiet_libraries", lambda: None)
        monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return run


def body(output):
    """The fields of the lines of layers."""
    return [line.split() for line in output.splitlines() if re.match(r" *\d+  ", line)]


def test_table(call, tiny_model, clipped):
    code, output, error = call(tiny_model, "--clip", clipped)
    assert (code, error) == (0, "")
    lines = output.splitlines()
    assert lines[0].endswith("; int2, groups of 32, bfloat16 scales")
    headings = re.split(r"  +", lines[2].strip())
    assert headings == [
        *("Block", "Layer", "Shape", "Std", "Max |w|", "Kurt", "Peak", "1-sign %"),
        *("Max kept", "Min kept", "Error RTN", "Error", "Entropy", "Bits/w"),
    ]
    rows = body(output)
    assert [row[:3] for row in rows[:2]] == [["0", "q_proj", "64×64"], ["0", "k_proj", "32×64"]]
    assert len(rows) == 14
    assert re.search(r"^ +all +0\.07 M", output, re.MULTILINE)
    assert "Peak: mean over groups of max |w| / rms" in output
    assert "\x1b" not in output


def test_output_is_the_same_every_time(call, clipped):
    assert call(clipped) == call(clipped / "clip.safetensors")


def test_layers_are_chosen_by_a_part_of_their_name_or_a_pattern(call, clipped):
    rows = body(call(clipped, "--layers", "down_proj")[1])
    assert [row[:2] for row in rows] == [["0", "down_proj"], ["1", "down_proj"]]
    assert len(body(call(clipped, "--layers", "model.layers.1.mlp.*")[1])) == 3


def test_json(call, tiny_model):
    code, output, _ = call(tiny_model, "--format", "nf3", "--group-size", "64", "--json")
    assert code == 0
    content = json.loads(output)
    assert content["quantization"] == {"format": "nf3", "group_size": 64, "scale_dtype": "bfloat16", "pad": False}
    assert len(content["layers"]) == 14
    assert content["layers"][0]["name"] == "model.layers.0.self_attn.q_proj"
    assert len(content["layers"][0]["code_shares"]) == 8
    assert 0 < content["total"]["error"] < 1


def test_csv(call, clipped, tmp_path):
    assert call(clipped, "--csv", tmp_path / "rows.csv")[0] == 0
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert float(rows[0]["output_error_after"]) < float(rows[0]["output_error_before"])
    assert rows[0]["std"] == ""


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_plot(call, clipped, tmp_path, suffix):
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    assert call(clipped, "--plot", first)[0] == 0
    assert call(clipped, "--plot", second)[0] == 0
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name}


def test_plot_has_a_panel_per_end_and_kind():
    kept = {f"{end}_kept{part}": 0.7 for end in ("maximum", "minimum") for part in ("", "_low", "_high")}
    names = [f"model.layers.{block}.mlp.{kind}_proj" for block in range(3) for kind in ("up", "down")]
    rows = [LayerRow(name, 1, 1, 1, **kept) for name in names] + [LayerRow("model.layers.0.attn.q_proj", 1, 1, 1)]
    rows[0] = LayerRow(names[0], 1, 1, 1, **kept | {"maximum_kept": 0.9})
    axes = clip_ratios(rows, "m").axes
    assert [panel.get_title(loc="left") for panel in axes] == ["up_proj", "down_proj"] * 2
    (line,) = axes[0].lines
    assert line.get_xdata().tolist() == [0, 1, 2]
    assert line.get_ydata().tolist() == [0.9, 0.7, 0.7]
    assert len({panel.get_ylim() for panel in axes}) == 1


def test_a_narrow_terminal_has_fewer_columns_and_no_folded_line(clipped, tiny_model):
    console = Console(width=80, force_terminal=True, color_system=None, record=True)
    inspect(tiny_model, Options(clip=clipped), console=console)
    output = console.export_text()
    table = output.split("\n\n")[1].splitlines()
    assert max(map(len, table)) <= 80
    assert len([line for line in table if "_proj" in line]) == 14
    assert "Error" in table[0]
    assert "1-sign" not in table[0]
    assert re.search(r"Not shown, the terminal is too narrow: .*1-sign %", output)


def test_a_model_without_the_default_group_size(call, tiny_model):
    code, output, error = call(tiny_model)
    assert (code, output) == (2, "")
    assert error.startswith("error: model.layers.0.self_attn.q_proj: group_size 128 does not divide its 64 input")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("nowhere", [], "nowhere: no such directory; accepted: a model, a packed checkpoint or an output of clip"),
        ("export", [], "did you mean "),
        ("clip", ["--format", "int3"], "--format: int3 was asked for, but "),
        ("packed", ["--group-size", "64"], "--group-size: 64 was asked for, but "),
        ("packed", ["--clip", "x"], "--clip: "),
        ("packed", ["--plot", "x.png"], "--plot: "),
        ("student", ["--format", "int2"], "--format: int2 was asked for, but "),
        ("clip", ["--reference", "x"], "--reference: "),
        ("model", ["--group-size", "32", "--reference", "PACKED"], "is quantised (compressed-tensors)"),
        ("clip", ["--plot", "x.pdf"], "--plot: x.pdf; accepted: a file that ends with .svg or .png"),
        ("clip", ["--csv", "no/x.csv"], "--csv: no: no such directory"),
        ("clip", ["--layers", "lm_head"], "--layers: 'lm_head' is in no layer of "),
        ("model", ["--clip", "CLIP", "--plot", "x.png", "--layers", "q_proj"], "--plot: none of the chosen layers"),
        ("model", ["--clip", "nowhere"], "nowhere: no such file; accepted: clip.safetensors of the stage clip"),
    ],
)
def test_a_bad_call_is_one_line_and_exit_code_2(
    call, kind, options, message, tiny_model, clipped, packed, student, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    paths = {"model": tiny_model, "clip": clipped, "student": student, "export": packed("int2"), "nowhere": "nowhere"}
    paths["packed"] = packed("int2") / "checkpoint"
    known = {"CLIP": clipped, "PACKED": paths["packed"]}
    code, output, error = call(paths[kind], *(known.get(option, option) for option in options))
    assert (code, output) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ('{"layers": []}', "damaged"), ("{", "damaged")]
)
def test_a_damaged_clip_report(call, clipped, tmp_path, content, message):
    (tmp_path / "clip.safetensors").write_bytes((clipped / "clip.safetensors").read_bytes())
    if content is not None:
        (tmp_path / "clip.json").write_text(content)
    code, _, error = call(tmp_path)
    assert code == 2
    assert re.match(rf"error: .*clip\.json: {message}", error)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "gptq"}, "its weights are stored as gptq pack-quantized; accepted: compressed-tensors"),
        ({"format": "int-quantized"}, "stored as compressed-tensors int-quantized"),
        ({"config_groups": {}}, "config.json: accepted: one config group of asymmetric integers in groups"),
    ],
)
def test_checkpoints_of_others_are_refused(call, packed, tmp_path, change, message):
    config = json.loads((packed("int2") / "checkpoint" / "config.json").read_text())
    config["quantization_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, error = call(tmp_path)
    assert code == 2
    assert message in error


def test_a_checkpoint_that_lacks_a_tensor(call, packed, tmp_path):
    source = packed("int2") / "checkpoint"
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    lacking = "model.layers.1.mlp.up_proj.weight_zero_point"
    with safe_open(source / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != lacking}  # noqa: SIM118
    save_file(tensors, tmp_path / "model.safetensors")
    code, output, error = call(tmp_path)
    assert (code, output) == (2, "")
    assert f"tensor {lacking} is missing from its files" in error


def test_a_reference_of_another_shape(call, packed, tiny_model, tmp_path):
    from helpers.tiny import write_model

    other = write_model(tmp_path / "other", intermediate_size=64)
    code, _, error = call(packed("int2") / "checkpoint", "--reference", other)
    assert code == 2
    assert "--reference: model.layers.0.mlp.gate_proj in " in error


def test_a_real_model(call, test_data):
    code, output, _ = call(test_data / "models" / "TinyStories-656K", "--group-size", "64", "--json")
    assert code == 0
    assert 0.15 < json.loads(output)["total"]["error"] < 0.25
