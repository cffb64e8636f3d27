"""Continuous batching beside static batches: `python benchmarks/generate.py [BASE [PROMPTS]]`; writes generate.csv.

BASE is the trained demo teacher with its corpus (default: results/demo/base, of `make demo`): how long its completions
are decides what can be gained. The prompts are those of the demo's first shard, or about PROMPTS of them. Static
batches are transformers' `generate`; *as drawn* takes the prompts in their order, *sorted* by length, as this project
did before. The forms take turns; times are medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, highest_mib, machine, number, reset_peak, write_csv
from transformers import AutoModelForCausalLM, AutoTokenizer

from bitdistiller.data.prompts import Prompt, mix_prompts, shard_prompts
from bitdistiller.generation import Sampling, TransformersEngine, static
from bitdistiller.plan import Plan
from bitdistiller.recipes import load_experiment

TURNS, THREADS = 3, 2
STATIC = "static, sorted"
Completions = list[tuple[str, list[int]]]
Form = Callable[[TransformersEngine, list[Prompt], Sampling], Completions]


def main() -> None:
    """Measure greedy decoding and sampling."""
    torch.set_num_threads(THREADS)
    base = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results" / "demo" / "base"
    generation = load_experiment(ROOT / "config.yaml").mixes["demo"].generation
    tokenizer = AutoTokenizer.from_pretrained(base / "model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32).to(device)
    engine = TransformersEngine(model, tokenizer, generation.batch_size)
    prompts = first_shard(base, tokenizer)
    prompts = prompts[:: max(1, len(prompts) // int(sys.argv[2]))] if len(sys.argv) > 2 else prompts
    rows = []
    for temperature in (0.0, generation.temperature):
        sampling = Sampling(generation.max_new_tokens, temperature)
        rows += measured(engine, prompts, sampling, device)
    write_csv("generate", rows)


def first_shard(base: Path, tokenizer: Any) -> list[Prompt]:
    """The prompts that the demo's job `generate` 0 completes."""
    mix = Plan(load_experiment(ROOT / "config.yaml")).experiment.mixes["demo"]
    sources = [
        source.model_copy(update={"path": base / "corpus" / f"{source.dataset}.train.jsonl"}) for source in mix.sources
    ]
    return shard_prompts(mix_prompts(mix.model_copy(update={"sources": sources}), tokenizer), 0, mix.shards)


def measured(
    engine: TransformersEngine, prompts: list[Prompt], sampling: Sampling, device: str
) -> list[dict[str, Any]]:
    """A line for each form: medians over the turns."""
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    peaks: dict[str, list[float]] = {name: [] for name in FORMS}
    found: dict[str, dict[str, list[int]]] = {}
    engine.complete([prompts[0].text], [0], sampling)
    for _ in range(TURNS):
        for name, form in FORMS.items():
            before, begin = reset_peak(device), time.perf_counter()
            found[name] = dict(form(engine, prompts, sampling))
            times[name].append(time.perf_counter() - begin)
            peaks[name].append(highest_mib(device) - before)
    tokens = sum(map(len, found[STATIC].values()))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return [
        {
            "device": device,
            "decoding": f"temperature {sampling.temperature}" if sampling.temperature else "greedy",
            "form": name,
            "prompts": len(prompts),
            "at_once": engine.batch_size,
            "tokens_per_second": number(tokens / seconds[name]),
            "times_drawn": number(seconds["static, as drawn"] / seconds[name]),
            "times_sorted": number(seconds[STATIC] / seconds[name]),
            "equal": number(sum(found[name][key] == ids for key, ids in found[STATIC].items()) / len(prompts)),
            "peak_mib": number(statistics.median(peaks[name])),
            "machine": machine(device),
        }
        for name in FORMS
    ]


def as_drawn(engine: TransformersEngine, prompts: list[Prompt], sampling: Sampling) -> Completions:
    """Static batches of the prompts in their order."""
    return in_groups(engine, prompts, sampling, engine.batch_size)


def by_length(engine: TransformersEngine, prompts: list[Prompt], sampling: Sampling) -> Completions:
    """Static batches of the sorted prompts."""
    return in_groups(engine, in_order(engine, prompts), sampling, engine.batch_size)


def continuous(every: int) -> Form:
    """This project's engine, `every` prompts at a time."""
    return lambda engine, prompts, sampling: in_groups(engine, in_order(engine, prompts), sampling, every, ours=True)


def in_order(engine: TransformersEngine, prompts: list[Prompt]) -> list[Prompt]:
    """Prompts by token length, as the stage sorts them."""
    return sorted(prompts, key=lambda prompt: (engine.prompt_length(prompt.text), prompt.id))


def in_groups(
    engine: TransformersEngine, prompts: list[Prompt], sampling: Sampling, size: int, ours: bool = False
) -> Completions:
    """Complete `size` prompts after the other."""
    chosen, engine.decode = engine.decode, engine.decode if ours else static.decode
    found: Completions = []
    for start in range(0, len(prompts), size):
        group = prompts[start : start + size]
        completions = engine.complete([p.text for p in group], [p.seed for p in group], sampling)
        found += [(p.id, c.token_ids) for p, c in zip(group, completions, strict=True)]
    engine.decode = chosen
    return found


FORMS: dict[str, Form] = {
    "static, as drawn": as_drawn,
    STATIC: by_length,
    "continuous, groups of 256": continuous(256),
    "continuous, one group": continuous(10**9),
}


if __name__ == "__main__":
    main()
