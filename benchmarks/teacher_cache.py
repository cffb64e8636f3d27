"""A live teacher beside cached ones: `python benchmarks/teacher_cache.py`; writes benchmarks/teacher_cache.csv.

Runs the workflow on benchmarks/teacher_cache.yaml (TinyStories-656K, INT2, every run trained alike) and reads size and
quality off its results; times are those of short runs afterwards, one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, machine, number, write_csv

from bitdistiller.plan import Plan
from bitdistiller.recipes import as_text, load_experiment

EXPERIMENT = Path(__file__).with_name("teacher_cache.yaml")
EVALUATION = "stories"
LIVE = "live"
STEPS = 12


def main() -> None:
    """Run what is not finished, then measure and write."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "host", "reason"]
    subprocess.run([*command, "--configfile", str(EXPERIMENT)], cwd=ROOT, check=True)
    write_csv("teacher_cache", rows(Plan(load_experiment(EXPERIMENT), ROOT / "results")))


def rows(plan: Plan) -> Iterator[dict[str, Any]]:
    """One line of the CSV for every run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reference = perplexity(plan, LIVE)
    for run in plan.experiment.runs:
        measured = perplexity(plan, run)
        lost = measured / reference - 1 if measured and reference else None
        yield {
            "device": device,
            "teacher": run,
            **size(plan, run),
            **speed(plan, run),
            "perplexity": "" if measured is None else f"{measured:.2f}",
            "perplexity_lost": "" if lost is None else f"{lost:+.1%}",
            "machine": machine(device),
        }


def size(plan: Plan, run: str) -> dict[str, str]:
    """Bytes on the disk for every token of the mix."""
    shards = plan.cache_shards(run)
    if not shards:
        return {"bytes_per_token": "", "cache_seconds": ""}
    digests = [read(shard / "digest.json") for shard in shards]
    written = sum(entry["bytes"] for digest in digests for entry in digest["files"].values())
    tokens = sum(digest["counts"]["token_count"] for digest in digests)
    recipe = as_text(plan.cache_recipe(run))
    inputs = ["--model", teacher(plan, run), "--tokens", plan.tokens(run)]
    again = timed("cache-teacher", "--recipe", recipe, *inputs)
    return {"bytes_per_token": number(written / tokens), "cache_seconds": number(again["wall_seconds"])}


def speed(plan: Plan, run: str) -> dict[str, str]:
    """Seconds of a step, the teacher's share of them, and the peak memory of a short training."""
    inputs = ["--model", plan.base(plan.run(run).model) / "model", "--tokens", plan.tokens(run)]
    inputs += ["--clip", plan.clip(run), *(word for shard in plan.cache_shards(run) for word in ("--cache", shard))]
    changes = ["--set", f"training.max_steps={STEPS}", "--set", f"training.evaluate_every={STEPS}"]
    origin = timed("train", "--recipe", as_text(plan.train_recipe(run)), *inputs, *changes)
    sums = origin["details"]
    seconds = sums["tokens"] / sums["tokens_per_second"] / sums["steps_taken"]
    return {
        "ms_per_step": number(1000 * seconds),
        "teacher_share": f"{sums['time_shares'].get('teacher', 0.0):.3f}",
        "peak_mib": number(origin["peak_memory"]["host_bytes"] / 2**20),
    }


def timed(*command: object) -> dict[str, Any]:
    """The provenance of a stage that runs into a temporary directory; one at a time, whatever ran beside the DAG."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "bitdistiller", *map(str, command), "--output", f"{folder}/output"]
        subprocess.run(words, cwd=ROOT, check=True)
        return read(Path(folder) / "output" / "provenance.json")


def teacher(plan: Plan, run: str) -> Path:
    """The model directory of a run's teacher."""
    return plan.base(plan.teacher(run)) / "model"


def perplexity(plan: Plan, run: str) -> float | None:
    """Perplexity of the packed student, where it is there already."""
    path = plan.evaluation(run, EVALUATION) / "metrics.json"
    return next(iter(read(path)["metrics"].values()))["value"] if path.exists() else None


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
