"""Stages as the rules start them; those on vLLM go on in the serving environment by themselves."""

from __future__ import annotations

from pathlib import Path

from helpers.processes import run

from bitdistiller.config import Mix
from bitdistiller.recipes import as_text

ENDS = [2, 51, 60, 81]
"""More end-of-sequence tokens than the tokenizer's, so that greedy completions of the tiny model end."""


def generate(model: Path, mix: Mix, output: Path) -> list[str]:
    """The command line of `generate` in float32, as the rule starts it."""
    words = ["--model", model, "--dtype", "float32", "--recipe", as_text(mix), "--output", output]
    return ["-m", "bitdistiller", "generate", *map(str, words)]


def stage(*command: object) -> str:
    """Run a stage to its end, which must be a success; its log."""
    code, log = run(*command)
    assert code == 0, log[-3000:]
    return log
