"""A mix for the tiny model of tiny.py, its token file, and a recipe to train it with."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from helpers.tiny import SENTENCES, make_tokenizer

from bitdistiller.config import TokenizeRecipe, TrainRecipe
from bitdistiller.data.tokenising import vocabulary_digest
from bitdistiller.stages import open_stage
from bitdistiller.stages.files import json_line

SAMPLES = 40
STEPS = 18
MAX_LENGTH = 32


def write_mix(output: Path, samples: int = SAMPLES, vocabulary: str | None = None) -> Path:
    """The output directory of a stage `mix`, with completions of several lengths."""
    tokenizer, pick = make_tokenizer(), random.Random(5)
    with open_stage("mix", version=1, recipe={"samples": samples}, inputs={}, output=output) as stage:
        lines = []
        for n in range(samples):
            words = pick.choice(SENTENCES).split()
            cut = pick.randint(1, len(words) - 2)
            prompt, completion = " ".join(words[:cut]), " " + " ".join(words[cut:])
            ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
            reason = "eos" if n % 3 else "length"
            lines.append({"id": f"text-0-{n}", "dataset": "text", "prompt": prompt, "completion": completion})
            lines[-1] |= {"completion_ids": ids, "finish_reason": reason}
        stage.output_file("mix.jsonl").write_text("".join(map(json_line, lines)))
        stage.finish(counts={"vocabulary": vocabulary or vocabulary_digest(tokenizer), "samples": samples})
    return output


def tokenize_mix(output: Path, model: Path, **mix: Any) -> Path:
    """The output directory of a stage `tokenize`, of a mix that is written beside it."""
    from bitdistiller.data.tokenize_stage import run

    source = write_mix(output.with_name(f"{output.name}-mix"), **mix)
    recipe = TokenizeRecipe(max_length=MAX_LENGTH)
    run(recipe, model=model, mix=source, output=output, work=None, time_budget=None)
    return output


def make_recipe(quantization: dict | None = None, **training) -> TrainRecipe:
    """18 steps of 4 sequences, an evaluation every 4: two epochs and a bit."""
    settings = {
        "learning_rate": 2e-3,
        "max_steps": STEPS,
        "batch_size": 4,
        "micro_batch_size": 2,
        "max_length": MAX_LENGTH,
        "evaluate_every": 4,
        "gradient_checkpointing": False,
        "precision": "float32",
        "reduction": "token_mean",
    }
    chosen = {"format": "int2", "group_size": 32, **(quantization or {})}
    if chosen["format"] == "sign1" or "-" in chosen["format"]:  # those without groups
        chosen = quantization
    return TrainRecipe(quantization=chosen, training={**settings, **training})
