"""Packed checkpoints in vLLM's CPU build, as they are: 4 bits are served, fewer are refused; LLM-QAT's as integers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.processes import finish, start

import bitdistiller

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "Once upon a time there was a little girl"
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def stage(*command: object) -> None:
    code, log = finish(start("-m", "bitdistiller", *command))
    assert code == 0, log


def packed(model: Path, bits: int, folder: Path, dtype: str) -> Path:
    shape = ["--format", f"int{bits}", "--group-size", "64", "--set", f"dtype={dtype}", "--output", folder / "out"]
    stage("export", "--weights", model, *shape)
    return folder / "out" / "checkpoint"


def answer(done: subprocess.CompletedProcess[str]) -> list[int]:
    return json.loads(done.stdout.rpartition("ANSWER")[2].splitlines()[0])


def by_transformers(checkpoint: Path) -> list[int]:
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(checkpoint)(PROMPT, return_tensors="pt").input_ids
    model = bitdistiller.load_model(checkpoint)
    return model.generate(tokens, max_new_tokens=24, do_sample=False)[0, tokens.shape[1] :].tolist()


def ask(python: str, checkpoint: Path, dtype: str) -> subprocess.CompletedProcess[str]:
    command = [python, str(ROOT / "tests" / "helpers" / "ask_vllm.py"), str(checkpoint), PROMPT, dtype]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=checkpoint.parent)


def test_four_bits_are_served_as_they_are(serve_python: str, stories_model: Path, tmp_path: Path) -> None:
    checkpoint = packed(stories_model, 4, tmp_path, "bfloat16")
    done = ask(serve_python, checkpoint, "bfloat16")
    assert done.returncode == 0, done.stderr[-3000:]
    assert answer(done)[:12] == by_transformers(checkpoint)[:12]  # roundings of bfloat16 may choose another way later


def test_two_bits_need_a_dequantised_copy(serve_python: str, stories_model: Path, tmp_path: Path) -> None:
    checkpoint = packed(stories_model, 2, tmp_path, "float32")
    done = ask(serve_python, checkpoint, "float32")
    assert done.returncode != 0
    assert "Failed to find a kernel" in done.stdout + done.stderr
    stage("convert", "--checkpoint", checkpoint, "--layout", "dense", "--output", tmp_path / "dense")
    done = ask(serve_python, tmp_path / "dense" / "checkpoint", "float32")
    assert done.returncode == 0, done.stderr[-3000:]
    assert answer(done) == by_transformers(checkpoint)


@pytest.mark.parametrize(
    ("bits", "kernel"),
    [
        ("8-8-32", "CompressedTensorsW8A8Int8"),
        ("4-8-32", "CompressedTensorsW4A8Int"),
        ("4-32-32", "CompressedTensorsWNA16"),
    ],
)
def test_llm_qat_is_served_in_integers(
    bits: str, kernel: str, serve_python: str, stories_model: Path, tmp_path: Path
) -> None:
    student = shutil.copytree(stories_model, tmp_path / "student")
    (student / "bitdistiller.json").write_text(json.dumps({"format": bits}))
    stage("export", "--weights", student, "--format", bits, "--set", "dtype=bfloat16", "--output", tmp_path / "out")
    checkpoint = tmp_path / "out" / "checkpoint"
    stage("convert", "--checkpoint", checkpoint, "--layout", "compressed-tensors", "--output", tmp_path / "integers")
    done = ask(serve_python, tmp_path / "integers" / "checkpoint", "bfloat16")
    assert done.returncode == 0, done.stderr[-3000:]
    assert kernel in done.stdout + done.stderr
    assert answer(done)[:6] == by_transformers(checkpoint)[:6]  # steps and roundings may choose another way later
