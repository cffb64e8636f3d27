"""A live teacher beside cached ones: `python benchmarks/teacher_cache.py`; writes benchmarks/teacher_cache.csv.

Runs the workflow on benchmarks/teacher_cache.yaml (TinyStories-656K, INT2, every run trained alike) and reads size,
time and quality off its results; jobs run one at a time, so that they do not slow each other. `--sizes` stops after the
caches and leaves the columns of the training empty.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, machine, number, write_csv

from bitdistiller.plan import Plan
from bitdistiller.recipes import load_experiment

EXPERIMENT = Path(__file__).with_name("teacher_cache.yaml")
EVALUATION = "stories"
LIVE = "live"


def main() -> None:
    """Run what is not finished, then measure and write."""
    sizes_only = "--sizes" in sys.argv[1:]
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "host", "reason"]
    command += ["--configfile", str(EXPERIMENT), *(("--until", "cache_teacher") if sizes_only else ())]
    subprocess.run(command, cwd=ROOT, check=True)
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
    """Bytes on the disk for every token of the mix, the same as a share of hidden states, and seconds to write them."""
    shards = plan.cache_shards(run)
    if not shards:
        return {"bytes_per_token": "", "cache_seconds": ""}
    digests = [read(shard / "digest.json") for shard in shards]
    written = sum(entry["bytes"] for digest in digests for entry in digest["files"].values())
    tokens = sum(digest["counts"]["token_count"] for digest in digests)
    seconds = sum(read(shard / "provenance.json")["wall_seconds"] for shard in shards)
    return {"bytes_per_token": number(written / tokens), "cache_seconds": number(seconds)}


def speed(plan: Plan, run: str) -> dict[str, str]:
    """Seconds of a step, the teacher's share of them, and the peak memory of the training."""
    path = plan.train(run) / "provenance.json"
    if not path.exists():
        return {"ms_per_step": "", "teacher_share": "", "peak_mib": ""}
    origin = read(path)
    sums = origin["details"]
    seconds = sums["tokens"] / sums["tokens_per_second"] / sums["steps_taken"]
    return {
        "ms_per_step": number(1000 * seconds),
        "teacher_share": f"{sums['time_shares'].get('teacher', 0.0):.3f}",
        "peak_mib": number(origin["peak_memory"]["host_bytes"] / 2**20),
    }


def perplexity(plan: Plan, run: str) -> float | None:
    """Perplexity of the packed student, where it is there already."""
    path = plan.evaluation(run, EVALUATION) / "metrics.json"
    return next(iter(read(path)["metrics"].values()))["value"] if path.exists() else None


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
