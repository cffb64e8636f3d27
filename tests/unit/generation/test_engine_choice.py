"""Which engine a job takes, and where it runs: configuration, GPUs, what the first attempt took."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.processes import run

from bitdistiller import environments
from bitdistiller.errors import InputError
from bitdistiller.generation import engines, serving
from bitdistiller.generation.engines import recorded, settle


@pytest.fixture
def machine(monkeypatch):
    """`machine(vllm, gpus)`: whether vLLM can be imported, and how many GPUs there are."""

    def make(vllm, gpus):
        monkeypatch.setattr(environments, "find_spec", lambda name: SimpleNamespace(origin=name) if vllm else None)
        for module in (engines, serving):
            monkeypatch.setattr(module, "gpu_count", lambda: gpus)

    return make


@pytest.mark.parametrize(
    ("configured", "vllm", "gpus", "engine"),
    [
        ("auto", True, 1, "vllm"),
        ("auto", True, 0, "transformers"),
        ("auto", False, 1, "transformers"),
        ("transformers", True, 1, "transformers"),
        ("vllm", True, 0, "vllm"),
    ],
)
def test_the_engine_of_a_new_job(machine, tmp_path, configured, vllm, gpus, engine):
    machine(vllm, gpus)
    assert recorded(tmp_path) is None
    assert settle(configured, tmp_path) == recorded(tmp_path) == engine


def test_later_attempts_keep_to_the_engine_of_the_first(machine, tmp_path):
    machine(vllm=False, gpus=0)
    settle("auto", tmp_path)
    machine(vllm=True, gpus=8)
    assert settle("auto", tmp_path) == "transformers"


def test_work_begun_before_engines_were_recorded_is_of_transformers(machine, tmp_path):
    machine(vllm=True, gpus=1)
    (tmp_path / "batches").mkdir()
    assert settle("auto", tmp_path) == "transformers"


def test_a_job_begun_with_vllm_does_not_go_on_without(machine, tmp_path):
    machine(vllm=True, gpus=1)
    settle("auto", tmp_path)
    machine(vllm=False, gpus=1)
    with pytest.raises(InputError, match=r"was begun with vLLM, which cannot be imported here; run `make env-serve`"):
        settle("auto", tmp_path)


@pytest.fixture
def recipe(tmp_path):
    """`generate`'s recipe with the engine vLLM, as text."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "The cat"}\n{"prompt": "The dog"}\n')
    source = {"dataset": "prompts", "samples": 1, "prompts": 2, "path": str(tmp_path / "prompts.jsonl")}
    return json.dumps({"teacher": "t", "sources": [source], "generation": {"engine": "vllm"}})


def test_vllm_without_vllm_is_one_line(recipe, tiny_model, tmp_path):
    command = ["-m", "bitdistiller", "generate", "--model", tiny_model, "--recipe", recipe]
    code, log = run(*command, "--output", tmp_path / "out", SERVE_PYTHON="python")
    errors = [line for line in log.splitlines() if line.startswith("error:")]
    assert code == 2
    assert len(errors) == 1
    assert "engine: vllm: cannot be imported here; run `make env-serve` once, or start snakemake with" in errors[0]
    assert "Traceback" not in log
    assert not (tmp_path / "out").exists()


def test_a_stage_goes_on_in_the_serving_environment_as_the_same_process(recipe, tiny_model, tmp_path):
    python = tmp_path / "serve" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$$ $@" > {tmp_path}/called\nenv > {tmp_path}/environment\nexit 75\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    command = ["-m", "bitdistiller", "generate", "--model", tiny_model, "--recipe", recipe, "--output", tmp_path / "o"]
    code, _ = run(*command, SERVE_PYTHON=str(python), PYTHONPATH="/elsewhere")
    assert code == 75
    called = (tmp_path / "called").read_text().split()
    assert called[1:5] == ["-m", "bitdistiller", "generate", "--model"]
    assert called[-1] == str(tmp_path / "o")
    environment = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert environment["PYTHONPATH"] == f"{environments.REPOSITORY}:/elsewhere"
    assert environment["PATH"].split(os.pathsep)[0] == str(python.parent)


@pytest.mark.parametrize(
    ("engine", "vllm", "gpus", "goes_on"),
    [
        ("vllm", False, 0, True),
        ("auto", False, 1, True),
        ("auto", False, 0, False),
        ("transformers", False, 1, False),
        ("vllm", True, 1, False),
    ],
)
def test_when_a_stage_goes_on_elsewhere(machine, monkeypatch, engine, vllm, gpus, goes_on):
    machine(vllm, gpus)
    started = []
    monkeypatch.setattr(serving.os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.setenv("SERVE_PYTHON", "/serve/bin/python")
    serving.enter(engine)
    assert bool(started) == goes_on
    monkeypatch.setenv(serving.ENTERED, "1")
    serving.enter(engine)
    assert len(started) == goes_on


def test_the_finished_environment_of_the_repository_is_found(monkeypatch, tmp_path):
    monkeypatch.delenv("SERVE_PYTHON", raising=False)
    assert environments.SERVE.is_missing(tmp_path)
    (tmp_path / ".venv-serve").mkdir()
    (tmp_path / ".venv-serve" / ".ready").touch()
    assert environments.SERVE.python(tmp_path) == str(tmp_path / Path(".venv-serve/bin/python"))
