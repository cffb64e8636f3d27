"""What Snakemake plans when a finished output was damaged: that output again, and what used it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = """\
models: {m: {demo: {}}}
mixes: {x: {teacher: m, shards: 2, sources: [{dataset: demo-math, samples: 4}]}}
calibrations: {c: {texts: demo}}
trainings: {t: {}}
evaluations: {e: {kind: perplexity, dataset: demo-text}}
runs: {int2: {model: m, method: bitdistiller, format: int2, calibration: c, mix: x, training: t}}
"""
SHARD = Path("results/m/mixes/x/shards/00001")


def snakemake(*arguments: str, cwd: Path) -> str:
    """Run Snakemake on our Snakefile, from `cwd`; its output."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile"), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def planned(directory: Path, *arguments: str) -> dict[str, int]:
    """Jobs of a dry run by rule, without the target."""
    output = snakemake("--dry-run", *arguments, cwd=directory)
    found = re.findall(r"^(\w+) +(\d+)$", output[output.find("Job stats") :], re.MULTILINE)
    return {name: int(count) for name, count in found if name not in ("all", "total")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which everything seems to be finished, each file a second younger than the one before."""
    directory = tmp_path_factory.mktemp("finished")
    (directory / "config.yaml").write_text(EXPERIMENT)
    lines = snakemake("--summary", cwd=directory).splitlines()
    paths = [directory / line.split("\t")[0] for line in lines if line.startswith("results/")]
    depth = ["/base/", "/clip/", "/shards/", "x/mix", "tokens-", "train/", "export/", "evaluation/", "tables/"]
    paths.sort(key=lambda path: next(i for i, part in enumerate(depth) if part in str(path)))
    for number, path in enumerate(paths):
        write(path)
        os.utime(path, (1e9 + number, 1e9 + number))
    return directory


def write(path: Path) -> None:
    """Something that passes for a declared output."""
    if path.name in ("model", "corpus", "student", "checkpoint"):
        path.mkdir(parents=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files = {"completions.jsonl": {"bytes": 5, "sha256": ""}} if "shards" in path.parts else {}
    path.write_text(json.dumps({"files": files}) if path.name == "digest.json" else "12345")


def test_whole_outputs_are_left_alone(finished: Path) -> None:
    assert planned(finished) == {}


def test_a_truncated_shard_is_made_again_with_what_used_it(finished: Path) -> None:
    (finished / SHARD / "completions.jsonl").write_text("12")
    used = dict.fromkeys(["generate", "mix", "tokenize", "train", "export", "evaluate", "tabulate"], 1)
    assert planned(finished) == used
    assert planned(finished, "results/m/mixes/x/mix/digest.json") == {"generate": 1, "mix": 1}
    assert planned(finished, "tables") == {"tables": 1}
