"""The stage `generate`: the same bytes whatever batches, shards and kills; bad input before any weight is loaded."""

import json
import os
import signal

import pytest
from helpers.processes import finish, start, wait_for
from helpers.tiny import SENTENCES

from bitdistiller.config import Mix
from bitdistiller.errors import DeadlineReached, InputError
from bitdistiller.generation import stage as generate_stage
from bitdistiller.recipes import as_text
from bitdistiller.stages import verify
from bitdistiller.stages.files import read_json, read_json_lines

PROMPTS = 40


@pytest.fixture(scope="module")
def prompts_file(tmp_path_factory):
    """Prompts of many lengths, one of them too long for the model's context."""
    texts = [sentence[: 4 + n] for n in range(10) for sentence in SENTENCES] + ["x" * 100]
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def recipe(prompts_file):
    """`recipe(**generation)`: a mix of all prompts of the file."""

    def make(**generation):
        source = {"dataset": "prompts", "samples": PROMPTS, "prompts": PROMPTS + 1, "path": prompts_file}
        return Mix(
            teacher="t",
            sources=[source],
            generation={"max_new_tokens": 20, "batch_size": 8, "commit_every": 16, **generation},
        )

    return make


@pytest.fixture
def generate(tiny_model, tmp_path):
    """`generate(recipe, name)`: one shard in this process; its records."""

    def run(recipe, name, model=tiny_model, **changes):
        settings = {"dtype": "float32", "shard": 0, "shards": 1, "work": None, "time_budget": None, **changes}
        generate_stage.run(recipe, model=model, output=tmp_path / name, **settings)
        return list(read_json_lines(tmp_path / name / "completions.jsonl"))

    return run


def test_a_shard(generate, recipe, tmp_path):
    records = generate(recipe(), "out")
    verify(tmp_path / "out")
    assert len(records) == PROMPTS
    assert "x" * 100 not in {record["prompt"] for record in records}
    counts = read_json(tmp_path / "out" / "digest.json")["counts"]
    assert (counts["prompts"], counts["too_long"], counts["completions"]) == (PROMPTS + 1, 1, PROMPTS)
    assert counts["completion_tokens"] == sum(len(record["completion_ids"]) for record in records)
    assert counts["ended"] == sum(record["finish_reason"] == "eos" for record in records)
    assert 0 < counts["ended"] < PROMPTS
    assert all(set(record) >= {"id", "dataset", "prompt", "completion", "prompt_tokens", "seed"} for record in records)
    assert read_json(tmp_path / "out" / "provenance.json")["details"]["prompts_per_second"] > 0


def test_bytes_do_not_depend_on_the_batch_size(generate, recipe, tmp_path):
    for size in (8, 1, 64):
        generate(recipe(batch_size=size), str(size))
    files = {(tmp_path / name / "completions.jsonl").read_bytes() for name in ("8", "1", "64")}
    assert len(files) == 1


def test_bytes_do_not_depend_on_the_groups(generate, recipe, tmp_path):
    for every in (1, 10, 1000):
        generate(recipe(commit_every=every), str(every))
        groups = list((tmp_path / f"{every}.work" / "state" / "batches").glob("*.jsonl"))
        assert len(groups) == -(-PROMPTS // max(every, 8))
    files = {(tmp_path / name / "completions.jsonl").read_bytes() for name in ("1", "10", "1000")}
    assert len(files) == 1


def test_records_do_not_depend_on_the_number_of_shards(generate, recipe):
    whole = {record["id"]: record for record in generate(recipe(), "whole")}
    parts = [generate(recipe(), f"part{shard}", shard=shard, shards=3) for shard in range(3)]
    assert {record["id"]: record for part in parts for record in part} == whole
    assert sum(map(len, parts)) == len(whole)


def test_a_real_model(generate, test_data):
    """TinyStories-656K in float32: neither batch size nor shard count changes a completion."""
    stories = test_data / "datasets" / "tinystories" / "valid_sample.jsonl.gz"
    source = {"dataset": "text", "samples": 23, "prompts": 24, "path": stories, "prompt_tokens": 12}

    def mix(size):
        generation = {"max_new_tokens": 24, "batch_size": size, "commit_every": 2 * size}
        return Mix(teacher="t", sources=[source], generation=generation)

    model = test_data / "models" / "TinyStories-656K"
    whole = {record["id"]: record for record in generate(mix(24), "whole", model=model)}
    parts = [generate(mix(5), f"part{shard}", model=model, shard=shard, shards=2) for shard in range(2)]
    assert {record["id"]: record for part in parts for record in part} == whole
    assert len(whole) == 24


def test_a_changed_recipe_does_not_resume(generate, recipe, tmp_path):
    warm = generate(recipe(), "out")
    greedy = generate(recipe(temperature=0.0), "out")
    assert greedy != warm
    assert greedy == generate(recipe(temperature=0.0), "fresh")
    assert len(list((tmp_path / "out.work").glob("stale-*"))) == 1


def test_a_time_budget_stops_between_batches_and_goes_on(generate, recipe, tmp_path):
    small = recipe(batch_size=1, commit_every=1)
    with pytest.raises(DeadlineReached):
        generate(small, "out", time_budget=0.002)
    done = len(list((tmp_path / "out.work" / "state" / "batches").glob("*.jsonl")))
    assert done < PROMPTS
    assert not (tmp_path / "out").exists()
    assert generate(recipe(batch_size=1, commit_every=1), "out") == generate(
        recipe(batch_size=1, commit_every=1), "undisturbed"
    )


def test_kill_in_the_middle_then_rerun_is_byte_identical(generate, recipe, tiny_model, tmp_path):
    small = recipe(batch_size=2, commit_every=4, max_new_tokens=48)
    generate(small, "undisturbed")
    command = [
        "-m",
        "bitdistiller",
        "generate",
        "--model",
        tiny_model,
        "--dtype",
        "float32",
        "--recipe",
        as_text(small),
    ]
    process = start(*command, "--output", tmp_path / "out")
    batches = tmp_path / "out.work" / "state" / "batches"
    wait_for(lambda: len(list(batches.glob("0*.jsonl"))) >= 3, process)
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in batches.glob("0*.jsonl")}
    assert 3 <= len(finished) < PROMPTS // 4
    assert not (tmp_path / "out").exists()
    generate(small, "out")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    for name in ("completions.jsonl", "digest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert len(read_json(tmp_path / "out" / "provenance.json")["attempts"]) == 2


def test_bad_input_is_one_line_before_any_weight_is_loaded(generate, recipe, tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(generate_stage, "open_engine", None)
    with pytest.raises(InputError, match=r"nowhere: no config\.json there; a model directory"):
        generate(recipe(), "out", model=tmp_path / "nowhere")
    with pytest.raises(InputError, match="--shard 3: must be from 0 to 2"):
        generate(recipe(), "out", shard=3, shards=3)
    missing = {"dataset": "prompts", "samples": 1, "path": tmp_path / "nowhere.jsonl"}
    with pytest.raises(InputError, match=r"nowhere\.jsonl: no such file or directory"):
        generate(Mix(teacher="t", sources=[missing]), "out")
    assert not (tmp_path / "out").exists()
