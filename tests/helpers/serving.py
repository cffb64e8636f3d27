"""Stages as the rules start them; those on vLLM go on in the serving environment by themselves."""

from __future__ import annotations

from pathlib import Path

from helpers.processes import finish, start

from bitdistiller.config import Mix
from bitdistiller.recipes import as_text

LOADING_SECONDS = 500.0
"""What a start of vLLM may take on a machine that is busy with other work; alone it takes 10 to 60."""
ENDS = [2, 51, 60, 81]
"""More end-of-sequence tokens than the tokenizer's, so that greedy completions of the tiny model end."""


def generate(model: Path, mix: Mix, output: Path) -> list[str]:
    """The command line of `generate` in float32, as the rule starts it."""
    words = ["--model", model, "--dtype", "float32", "--recipe", as_text(mix), "--output", output]
    return ["-m", "bitdistiller", "generate", *map(str, words)]


def stage(*command: object) -> str:
    """Run a stage to its end, which must be a success; its log."""
    code, log = finish(start(*command), LOADING_SECONDS)
    assert code == 0, log[-3000:]
    return log
