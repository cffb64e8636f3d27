"""The command line: what it lists, what it passes on, how it ends."""

import json
import logging

import pytest
from helpers.mixes import write_mix
from helpers.processes import run as run_process

from bitdistiller import cli
from bitdistiller.data.tokens import TokenFile
from bitdistiller.options import RECIPES
from bitdistiller.stages.attempts import Attempts

STAGES = (
    "fetch",
    "pretrain-demo",
    "clip",
    "generate",
    "mix",
    "tokenize",
    "cache-teacher",
    "warm-start",
    "train",
    "export",
    "convert",
    "evaluate",
    "tabulate",
)


@pytest.fixture
def bitdistiller(monkeypatch, capsys):
    """`bitdistiller(*arguments)`: exit code, standard output and standard error of the command in this process."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["bitdistiller", *map(str, arguments)])
        monkeypatch.setattr(cli, "_quiet_libraries", lambda: None)
        monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def experiment(tmp_path):
    """`experiment(**sections)`: an experiment file on a tiny local model directory."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"hidden_size": 64, "intermediate_size": 128, "vocab_size": 10}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"vocab_size": 11}))

    def write(**sections):
        good = {
            "models": {"m": {"path": str(model)}, "other": {"path": str(tmp_path / "other")}},
            "calibrations": {"c": {"texts": "pile"}},
            "mixes": {"x": {"teacher": "m", "sources": [{"dataset": "alpaca", "samples": 2}]}},
            "trainings": {"t": {}},
            "runs": {"int2": {"model": "m", "method": "rtn", "format": "int2", "group_size": 64}},
        }
        path = tmp_path / "experiment.yaml"
        path.write_text(json.dumps({**good, **sections}))
        return path

    return write


def test_help_lists_every_stage(bitdistiller):
    code, output, _ = bitdistiller("--help")
    assert code == 0
    commands = {line.split()[1] for line in output.splitlines() if line.startswith("│ ") and len(line.split()) > 2}
    assert {*STAGES, "check", "options", "schema", "show", "unlock"} <= commands


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_the_options_of_a_stage(bitdistiller, stage, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, output, _ = bitdistiller(stage, "--help")
    assert code == 0
    for option in ("--output", "--work", "--time-budget", "--walltime"):
        assert option in output


def test_shards_of_the_calibration_and_their_merge(bitdistiller, tiny_model, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": "The cat sat on the mat and looked at the moon."}) + "\n" for _ in range(9))
    )
    common = ("clip", "--model", tiny_model, "--texts", "text", "--path", texts, "--group-size", 32)
    common += ("--set", "calibration.block_length=48", "--output")
    shards = [tmp_path / f"shard-{shard}" for shard in range(2)]
    for shard, output in enumerate(shards):
        assert bitdistiller(*common, output, "--shard", shard, "--num-shards", 2)[0] == 0
    given = [argument for output in shards for argument in ("--grams", output)]
    assert bitdistiller(*common, tmp_path / "clip", "--format", "int2", *given)[0] == 0
    assert (tmp_path / "clip" / "clip.safetensors").exists()
    code, _, error = bitdistiller(*common, tmp_path / "half", "--format", "int2", *given[:2])
    assert (code, error) == (2, "error: --grams: shards 1 of 2 are missing; give each shard once\n")
    code, _, error = bitdistiller(*common, tmp_path / "shard", "--shard", 0, "--format", "int2")
    assert (code, error) == (2, "error: --shard: Grams do not depend on --format; leave it out\n")


def test_a_mix_becomes_tokens_and_a_cached_teacher(bitdistiller, tiny_model, tmp_path):
    mix, tokens, cache = write_mix(tmp_path / "mix"), tmp_path / "tokens", tmp_path / "cache"
    code, _, error = bitdistiller(
        "tokenize", "--model", tiny_model, "--mix", mix, "--output", tokens, "--set", "max_length=16"
    )
    assert (code, TokenFile(tokens).counts["longest"]) == (0, 16), error
    command = ("cache-teacher", "--model", tiny_model, "--tokens", tokens, "--shard", 1, "--num-shards", 2)
    code, _, error = bitdistiller(*command, "--output", cache, "--set", "kind=topk", "--set", "k=3")
    assert code == 0, error
    counts = json.loads((cache / "digest.json").read_text())["counts"]
    assert (counts["kind"], counts["k"], counts["first_sample"], counts["samples"]) == ("topk", 3, 20, 20)
    code, _, error = bitdistiller("cache-teacher", "--model", tiny_model, "--tokens", mix, "--output", cache)
    expected = f"error: {mix}: not a finished token file; give the output directory of the stage tokenize\n"
    assert (code, error) == (2, expected)


@pytest.mark.parametrize("stage", RECIPES)
def test_options(bitdistiller, stage):
    code, output, _ = bitdistiller("options", stage)
    assert code == 0
    assert output.splitlines()
    assert all(line.split(" (")[0].replace(".", "").replace("_", "").isalnum() for line in output.splitlines())


def test_options_of_an_unknown_stage(bitdistiller):
    code, _, error = bitdistiller("options", "distill")
    assert code == 2
    assert error.startswith("error: no stage 'distill' with options; accepted: pretrain-demo, clip, ")


def test_check(bitdistiller, experiment):
    code, output, _ = bitdistiller("check", "--config", experiment())
    assert code == 0
    first, second = output.splitlines()
    assert first.endswith("1 runs, 0 evaluations, all local files are there")
    assert "jobs, no GPU, about" in second


SOURCE = {"dataset": "alpaca", "samples": 2}
TRAINED = {"method": "bitdistiller", "format": "int2", "group_size": 64, "calibration": "c", "training": "t"}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"mixes": {"x": {"teacher": "m", "sources": [{**SOURCE, "sampels": 2}]}}},
            "mixes.x.sources.0.sampels: unknown",
        ),
        ({"models": {"m": {"path": "nowhere"}}}, "models.m.path: nowhere is not a model directory"),
        (
            {"runs": {"int2": {"model": "m", "method": "rtn", "format": "int2", "group_size": 48}}},
            "runs.int2.group_size: 48 does not divide hidden_size 64 of model m",
        ),
        (
            {"mixes": {"x": {"teacher": "m", "sources": [{**SOURCE, "dataset": "pg19"}]}}},
            "mixes.x.sources.0.dataset: in",
        ),
        (
            {"mixes": {"x": {"teacher": "m", "sources": [{**SOURCE, "samples": 0}]}}},
            "mixes.x.sources.0.samples: input sh",
        ),
        (
            {
                "mixes": {"x": {"teacher": "other", "sources": [SOURCE]}},
                "runs": {"int2": {"model": "m", "mix": "x", **TRAINED}},
            },
            "runs.int2: the vocabularies of student m (10) and of teacher other (11) differ",
        ),
    ],
    ids=["unknown-key", "missing-model", "group-size", "unknown-dataset", "zero-samples", "vocabularies"],
)
def test_a_bad_experiment_is_one_line_and_exit_code_2(bitdistiller, experiment, sections, message):
    code, output, error = bitdistiller("check", "--config", experiment(**sections))
    assert (code, output) == (2, "")
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert message in error


def test_the_process_itself_ends_with_2():
    code, output = run_process("-m", "bitdistiller", "check", "--config", "nowhere.yaml")
    assert (code, output) == (2, "error: nowhere.yaml: no such file\n")


def test_schema(bitdistiller, tmp_path):
    assert bitdistiller("schema", "--output", tmp_path / "schema.json")[0] == 0
    schema = json.loads((tmp_path / "schema.json").read_text())
    assert schema["additionalProperties"] is False


def test_unlock(bitdistiller, tmp_path):
    attempts = Attempts(tmp_path / "work")
    for _ in range(5):
        attempts.start()
    code, output, _ = bitdistiller("unlock", tmp_path / "work")
    assert (code, output) == (0, f"{tmp_path / 'work'}: the next attempt may start\n")
    assert attempts.start() == 1
    code, _, error = bitdistiller("unlock", tmp_path)
    assert (code, error) == (2, f"error: {tmp_path}: not a work directory (no attempts.jsonl in it)\n")


class Called(Exception):
    """Stands for the stage; has what it was called with."""


@pytest.fixture
def stage_call(monkeypatch, bitdistiller):
    """`stage_call(module, *arguments)`: what the command passes to `module.run`."""
    import importlib

    def call(module, *arguments):
        def run(recipe, **settings):
            raise Called(recipe, settings)

        monkeypatch.setattr(importlib.import_module(module), "run", run)
        with pytest.raises(Called) as called:
            bitdistiller(*arguments)
        return called.value.args

    return call


def test_generate_passes_its_options_on(stage_call, tmp_path):
    recipe = '{"teacher": "m", "sources": [{"dataset": "alpaca", "samples": 5}]}'
    numeric = tmp_path / "7"
    arguments = ["--model", numeric, "--output", tmp_path, "--recipe", recipe, "--shard", 1, "--num-shards", 3]
    changes = ["--set", "generation.temperature=0", "--set", "generation.batch_size=4", "--time-budget", 12.5]
    got, settings = stage_call("bitdistiller.generation.stage", "generate", *arguments, *changes)
    assert (got.sources[0].samples, got.generation.temperature, got.generation.batch_size) == (5, 0.0, 4)
    assert (settings["model"], settings["shard"], settings["shards"], settings["dtype"]) == (numeric, 1, 3, "bfloat16")
    assert (settings["output"], settings["work"], settings["time_budget"]) == (tmp_path, None, 12.5)


def test_fetch_takes_its_values_as_they_are(stage_call, tmp_path):
    module = "bitdistiller.data.fetch"
    model, _ = stage_call(module, "fetch", "--hub", "a/b", "--revision", "1234567", "--output", tmp_path)
    assert (model.hub, model.revision) == ("a/b", "1234567")
    model, _ = stage_call(module, "fetch", "--path", tmp_path / "a: b #c", "--output", tmp_path)
    assert model.path == tmp_path / "a: b #c"


def test_mix_takes_all_shards(stage_call, tmp_path):
    recipe = '{"teacher": "m", "sources": [{"dataset": "alpaca", "samples": 5}]}'
    shards = [part for name in "ab" for part in ("--shard", tmp_path / name)]
    _, settings = stage_call("bitdistiller.data.stage", "mix", *shards, "--recipe", recipe, "--output", tmp_path)
    assert settings["shards"] == [tmp_path / "a", tmp_path / "b"]


def test_a_walltime_binds_only_in_a_job(stage_call, tmp_path, monkeypatch):
    arguments = ["fetch", "--hub", "a/b", "--output", tmp_path, "--walltime", 30]
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert stage_call("bitdistiller.data.fetch", *arguments)[1]["time_budget"] is None
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stage_call("bitdistiller.data.fetch", *arguments)[1]["time_budget"] == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("teacher.name=x", "error: --set teacher.name: teacher is not a section"),
        ("generation.bogus=1", "error: --recipe: generation.bogus: unknown key; accepted: batch_size, "),
        (
            "sources=[{dataset: alpaca, samples: 0}]",
            "error: --recipe: sources.0.samples: input should be greater than 0",
        ),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_2(bitdistiller, tmp_path, change, message):
    source = "sources=[{dataset: alpaca, samples: 1}]"
    arguments = ["--model", tmp_path, "--output", tmp_path / "out", "--set", source, "--set", change]
    code, _, error = bitdistiller("generate", *arguments)
    assert code == 2
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
