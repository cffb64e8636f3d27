"""Continuous batching beside static batches: `python benchmarks/generate.py [BASE [PROMPTS]]`; writes generate.csv.

BASE is the trained demo teacher with its corpus (default: results/demo/base, of `make demo`): how long its completions
are decides what can be gained. The prompts are those of the demo's first shard, or about PROMPTS of them, in order of
length. Static batches are transformers' `generate`, as this project used it before. As completions of the demo teacher
are nearly as long as others of prompts of that length, the last rows give every prompt a limit from an exponential
distribution. The forms take turns; times are medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ROOT, highest_mib, machine, number, reset_peak, write_csv
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitdistiller.config import Generation
from bitdistiller.data.prompts import Prompt, mix_prompts, shard_prompts
from bitdistiller.data.tokenising import encode_prompt
from bitdistiller.generation import Sampling, TransformersEngine, continuous, static
from bitdistiller.recipes import load_experiment

TURNS, THREADS, MEAN_LENGTH = 3, 2, 28
STATIC = "static"
FORMS: dict[str, int | None] = {STATIC: None, "continuous, groups of 256": 256, "continuous, one group": 10**9}
"""Prompts that are completed together; None: static batches."""


@dataclass(frozen=True)
class Work:
    """Prompts as token ids, with the most new tokens and the seed of each, and how they are continued."""

    name: str
    prompts: list[list[int]]
    limits: list[int]
    seeds: list[int]
    sampling: Sampling
    end: tuple[int, ...]


def main() -> None:
    """Measure greedy decoding, sampling and spread lengths."""
    torch.set_num_threads(THREADS)
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results" / "demo" / "base"
    generation = load_experiment(ROOT / "config.yaml").mixes["demo"].generation
    tokenizer = AutoTokenizer.from_pretrained(base / "model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32).to(device)
    engine = TransformersEngine(model, tokenizer, generation.batch_size)
    prompts = first_shard(base, tokenizer)
    prompts = prompts[:: max(1, len(prompts) // int(sys.argv[2]))] if len(sys.argv) > 2 else prompts
    prompts.sort(key=lambda prompt: (engine.prompt_length(prompt.text), prompt.id))
    works = workloads(engine, prompts, generation)
    write_csv("generate", [row for work in works for row in measured(engine, work, device)])


def first_shard(base: Path, tokenizer: Any) -> list[Prompt]:
    """The prompts that the demo's job `generate` 0 completes."""
    mix = load_experiment(ROOT / "config.yaml").mixes["demo"]
    sources = [
        source.model_copy(update={"path": base / "corpus" / f"{source.dataset}.train.jsonl"}) for source in mix.sources
    ]
    return shard_prompts(mix_prompts(mix.model_copy(update={"sources": sources}), tokenizer), 0, mix.shards)


def workloads(engine: TransformersEngine, prompts: list[Prompt], generation: Generation) -> list[Work]:
    """The demo's own, greedy and sampled, and one whose completions have lengths of their own; it ends at no token."""
    ids = [encode_prompt(engine.tokenizer, prompt.text) for prompt in prompts]
    room = [min(generation.max_new_tokens, engine.context - len(row)) for row in ids]
    seeds = [prompt.seed for prompt in prompts]
    drawn = np.random.default_rng(0).exponential(MEAN_LENGTH, len(ids))
    spread = [min(most, 1 + int(length)) for most, length in zip(room, drawn, strict=True)]
    greedy, sampled = (Sampling(generation.max_new_tokens, value) for value in (0.0, generation.temperature))
    return [
        Work("greedy", ids, room, seeds, greedy, engine.eos),
        Work(f"temperature {sampled.temperature}", ids, room, seeds, sampled, engine.eos),
        Work("greedy, spread lengths", ids, spread, seeds, greedy, (engine.tokenizer.pad_token_id,)),
    ]


def measured(engine: TransformersEngine, work: Work, device: str) -> list[dict[str, Any]]:
    """A line for each form: medians over the turns."""
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    peaks: dict[str, list[float]] = {name: [] for name in FORMS}
    found: dict[str, list[list[int]]] = {}
    for _ in range(TURNS):
        for name, every in FORMS.items():
            before, begin = reset_peak(device), time.perf_counter()
            found[name] = completed(engine, work, every)
            times[name].append(time.perf_counter() - begin)
            peaks[name].append(highest_mib(device) - before)
    tokens = sum(map(len, found[STATIC]))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return [
        {
            "device": device,
            "decoding": work.name,
            "form": name,
            "prompts": len(work.prompts),
            "at_once": engine.batch_size,
            "tokens_per_second": number(tokens / seconds[name]),
            "times_static": number(seconds[STATIC] / seconds[name]),
            "equal": number(sum(map(eq, found[name], found[STATIC])) / len(work.prompts)),
            "peak_mib": number(statistics.median(peaks[name])),
            "share_of_static_peak": number(statistics.median(peaks[name]) / statistics.median(peaks[STATIC])),
            "machine": machine(device),
        }
        for name in FORMS
    ]


def completed(engine: TransformersEngine, work: Work, every: int | None) -> list[list[int]]:
    """New tokens of every prompt, end tokens included."""
    decode = static.decode if every is None else continuous.decode
    found: list[list[int]] = []
    for start in range(0, len(work.prompts), every or engine.batch_size):
        part = slice(start, start + (every or engine.batch_size))
        given = (work.prompts[part], work.limits[part], work.seeds[part])
        found += decode(engine.model, *given, work.sampling, work.end, engine.batch_size)
    return [until_end(ids[:limit], work.end) for ids, limit in zip(found, work.limits, strict=True)]


def until_end(ids: list[int], end: tuple[int, ...]) -> list[int]:
    """Tokens up to the one that ended them."""
    return next((ids[: index + 1] for index, token in enumerate(ids) if token in end), ids)


if __name__ == "__main__":
    main()
