"""Both engines on the same prompts: `python benchmarks/generate_vllm.py`; writes benchmarks/generate_vllm.csv.

Each engine runs in its own environment and they take turns, so that a busy machine slows both. Greedy decoding, so that
the share of equal completions means something. Without a GPU it needs vLLM's CPU build (`make env-serve`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from measure import ROOT, machine, number, write_csv

sys.path.insert(0, str(ROOT))

from bitdistiller.environments import SERVE
from bitdistiller.generation.engine import Sampling, Wanted
from bitdistiller.generation.engines import open_engine

ENGINES = ("transformers", "vllm")
PROMPTS, NEW_TOKENS, ROUNDS = 64, 64, 5
DEMO = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
DEMO |= {"num_key_value_heads": 4, "vocab_size": 1024, "max_position_embeddings": 128}


def main() -> None:
    """Measure every model with one and with two threads."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = arguments.parse_args()
    if SERVE.is_missing():
        sys.exit(f"no {SERVE.directory}; run `make {SERVE.target}`, or set {SERVE.variable}")
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(Path(folder), given.data)
        rows = [row for threads in given.threads for name in models for row in compare(name, models[name], threads)]
    write_csv("generate_vllm", rows)


def write_models(folder: Path, data: Path) -> dict[str, Path]:
    """The models by name: one of the demo teacher's shape, TinyStories-656K with heads that vLLM's CPU build takes."""
    from helpers.tiny import write_model
    from helpers.widened import widen_model

    return {
        "demo's shape, random": write_model(folder / "demo", **DEMO),
        "TinyStories-656K, wide heads": widen_model(data / "models" / "TinyStories-656K", folder / "stories"),
    }


def compare(name: str, model: Path, threads: int) -> Iterator[dict[str, Any]]:
    """One row per engine."""
    workers = {engine: Worker(engine, model, threads) for engine in ENGINES}
    rounds = [{engine: worker.ask() for engine, worker in workers.items()} for _ in range(ROUNDS)][1:]
    for worker in workers.values():
        worker.end()
    completions = {engine: rounds[0][engine][1] for engine in ENGINES}
    equal = sum(one == other for one, other in zip(*completions.values(), strict=True))
    seconds = {engine: statistics.median(turn[engine][0] for turn in rounds) for engine in ENGINES}
    for engine in ENGINES:
        tokens = sum(map(len, completions[engine]))
        yield {
            "device": workers[engine].device,
            "model": name,
            "engine": engine,
            "threads": threads,
            "prompts": PROMPTS,
            "new_tokens": tokens,
            "tokens_per_second": number(tokens / seconds[engine]),
            "times_transformers": number(seconds["transformers"] / seconds[engine]),
            "equal_completions": f"{equal / PROMPTS:.3f}",
            "start_seconds": number(workers[engine].start_seconds),
            "machine": machine(workers[engine].device),
        }


class Worker:
    """One engine in a process of its environment."""

    def __init__(self, engine: str, model: Path, threads: int) -> None:
        self.begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, Listener(f"{folder}/socket") as listener:
            python = SERVE.python() if engine == "vllm" else sys.executable
            variables = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
            command = [python, __file__, "--worker", engine, str(model), f"{folder}/socket"]
            self.process = subprocess.Popen(command, env={**os.environ, **variables})
            self.connection = listener.accept()
        self.device: str = self.connection.recv()
        self.start_seconds = time.perf_counter() - self.begin

    def ask(self) -> tuple[float, list[list[int]]]:
        """Complete all prompts once: seconds, and the token ids of the completions."""
        self.connection.send("go")
        return self.connection.recv()

    def end(self) -> None:
        """Close the connection, at which the process ends."""
        self.connection.close()
        self.process.wait()


def work(engine_name: str, model: Path, connection: Connection) -> None:
    """A worker's life: load, say so, complete all prompts as often as asked."""
    import torch

    engine = open_engine(engine_name, Wanted(model, "float32", longest=128))
    sampling = Sampling(NEW_TOKENS)
    connection.send("cuda" if torch.cuda.is_available() else "cpu")
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        begin = time.perf_counter()
        found = engine.complete(prompts(), range(PROMPTS), sampling)
        connection.send((time.perf_counter() - begin, [completion.token_ids for completion in found]))


def prompts() -> list[str]:
    """Prompts of many lengths."""
    start = "Once upon a time there was a little dog who liked to run"
    return [f"{start[: 12 + index % 45]} {index}" for index in range(PROMPTS)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Path(sys.argv[3]), Client(sys.argv[4]))
    else:
        main()
