"""A tiny model, its prompts and texts, and an experiment whose `generate` and `train` have many small parts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml
from helpers.tiny import SENTENCES, write_model

SHARDS = 2
BATCH = 2
BATCHES = 100
"""Batches of generation in a shard."""
STEPS = 120
SAVE_EVERY = 5
"""Steps of training in a save interval."""
STAGES = (
    "fetch",
    "clip",
    "baseline",
    "generate",
    "mix",
    "tokenize",
    "cache",
    "warm_start",
    "train",
    "export",
    "evaluate",
)


def write_inputs(directory: Path) -> Path:
    """Model, prompts, texts and questions in `directory`, which projects read and never write; returns it."""
    pick = random.Random(3)
    words = " ".join(SENTENCES).split()
    prompts = [{"prompt": " ".join(pick.sample(words, 6))} for _ in range(2 * SHARDS * BATCH * BATCHES)]
    questions = [{"question": f"{n} and {n + 1}?", "answer": f"#### {2 * n + 1}"} for n in range(6)]
    write_model(directory / "model", max_position_embeddings=256)
    write_lines(directory / "prompts.jsonl", prompts)
    write_lines(directory / "questions.jsonl", questions)
    (directory / "texts.txt").write_text("\n".join(SENTENCES * 12) + "\n")
    return directory


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def experiment(inputs: Path) -> dict[str, Any]:
    """One distilled run with a perplexity and an evaluation that writes answers."""
    texts = str(inputs / "texts.txt")
    prompts = SHARDS * BATCH * BATCHES
    source = {"dataset": "prompts", "path": str(inputs / "prompts.jsonl"), "samples": prompts // 2, "prompts": prompts}
    training = {"learning_rate": 1e-3, "max_steps": STEPS, "batch_size": 4, "micro_batch_size": 4, "max_length": 64}
    training |= {"evaluation_fraction": 0.1, "evaluate_every": SAVE_EVERY, "reduction": "token_mean"}
    training |= {"gradient_checkpointing": False, "precision": "float32"}
    questions = {"kind": "math", "dataset": "gsm8k", "path": str(inputs / "questions.jsonl"), "max_new_tokens": 8}
    run = {"model": "tiny", "method": "bitdistiller", "format": "int2", "group_size": 32}
    return {
        "experiment": "faults",
        "models": {"tiny": {"path": str(inputs / "model"), "dtype": "float32"}},
        "calibrations": {"short": {"texts": "text", "path": texts, "samples": 8, "block_length": 48}},
        "mixes": {
            "mix": {
                "teacher": "tiny",
                "shards": SHARDS,
                "sources": [source],
                "generation": {"max_new_tokens": 48, "batch_size": BATCH, "commit_every": BATCH},
            }
        },
        "trainings": {"short": training},
        "evaluations": {
            "text": {"kind": "perplexity", "dataset": "text", "path": texts, "chunk_length": 48},
            "questions": questions,
        },
        "runs": {"int2": {**run, "calibration": "short", "mix": "mix", "training": "short"}},
        "resources": {stage: {"threads": 1, "mem_mb": 1000} for stage in STAGES},
    }


def write_experiment(path: Path, inputs: Path) -> None:
    """The experiment as a project's config.yaml."""
    path.write_text(yaml.safe_dump(experiment(inputs), sort_keys=False))
