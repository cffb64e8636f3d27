"""A whole training step beside a naive one: `python benchmarks/train_step.py`; writes benchmarks/train_step.csv.

Naive is the published recipe written down plainly: fake quantisation by autograd in every forward, logits of all
positions from student and teacher, a live teacher, sequences padded to the longest of a micro-batch as they were drawn.
Ours runs the loop of the stage `train` on the same model, the same sequences and in the same precision. Every row is a
fresh process; the two are run by turns. Peak memory is what a process takes beyond its imports.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measure import highest_mib, machine, number, reset_peak, write_csv
from reference.formats import integer
from transformers import LlamaConfig, LlamaForCausalLM

from bitdistiller.config import Training
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation.batches import collate
from bitdistiller.distillation.cache.chunks import CHUNKS, chunk_file, write_chunk
from bitdistiller.distillation.cache.reader import Cache
from bitdistiller.distillation.clock import Clock, time_quantiser
from bitdistiller.distillation.engines.local import SingleEngine
from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.loop import Loop, Objective
from bitdistiller.distillation.losses import resolve
from bitdistiller.distillation.parameters import parameter_groups
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.student import Student
from bitdistiller.distillation.teacher import CachedHiddenTeacher, LiveTeacher, last_hidden_states
from bitdistiller.distillation.world import World
from bitdistiller.formats import get_format
from bitdistiller.layers import quantize_linears, quantized_linear_names
from bitdistiller.stages import DIGEST
from bitdistiller.stages.files import write_json

GAMMA, STEPS, WARM_UP, TURNS = 0.4, 4, 1, 2
A100_BFLOAT16, H100_BFLOAT16 = 312e12, 989e12
PAPER_TOKENS = 26.2e6


@dataclass(frozen=True)
class Size:
    """A model and how it is trained."""

    shape: dict[str, Any]
    precision: str
    batch: int
    micro_batch: int
    length: int
    checkpointing: bool = False
    steps: int = STEPS


COMMON = {"tie_word_embeddings": False, "attn_implementation": "sdpa"}
SIZES = {
    "TinyStories-656K": Size(
        {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 8}
        | {"num_key_value_heads": 4, "vocab_size": 2048, "max_position_embeddings": 512, "tie_word_embeddings": True},
        "float32", 16, 16, 255,
    ),
    "hidden 512, vocabulary 32000": Size(
        {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4, "num_attention_heads": 8}
        | {"num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 512},
        "float32", 16, 8, 256, steps=2,
    ),
}  # fmt: skip
GPU_SIZES = {
    "LLaMA-2-7B": Size(
        {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
        | {"num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096},
        "bfloat16", 16, 4, 1024, checkpointing=True, steps=3,
    ),
}  # fmt: skip


def main() -> None:
    """Measure all, or (as a child process) one row."""
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(child(*sys.argv[1:])) + "\n")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for name in GPU_SIZES if device == "cuda" else SIZES:
        kinds = ("ours",) if device == "cuda" else ("naive", "ours", "ours, cached")
        found = {kind: [] for kind in kinds}
        for _ in range(1 if device == "cuda" else TURNS):
            for kind in kinds:
                found[kind].append(run_child(name, kind, device))
        rows += [row(device, name, kind, results, found) for kind, results in found.items()]
    write_csv("train_step", rows)


def run_child(*arguments: str) -> dict[str, Any]:
    """One measurement in a fresh process."""
    command = [sys.executable, __file__, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def row(device: str, name: str, kind: str, results: list[dict], found: dict[str, list[dict]]) -> dict[str, Any]:
    """One line of the CSV: medians over the turns."""

    def median(of: list[dict], key: str) -> float:
        return statistics.median(result[key] for result in of)

    naive = found.get("naive")
    rate, peak = median(results, "tokens_per_second"), median(results, "peak_mib")
    line = {
        "device": device,
        "model": name,
        "step": kind,
        "tokens_per_second": number(rate),
        "times_naive": number(rate / median(naive, "tokens_per_second")) if naive else "",
        "peak_mib": number(peak),
        "share_of_naive_peak": number(peak / median(naive, "peak_mib")) if naive else "",
        "padding": number(results[0]["padding"]),
    }
    for section in ("teacher", "student", "quantiser", "loss", "optimizer"):
        line[section] = number(results[0]["shares"][section]) if "shares" in results[0] else ""
    utilised = results[0].get("mfu")
    line["mfu"] = number(utilised) if utilised else ""
    line["hours_of_paper_run"] = number(PAPER_TOKENS / rate / 3600) if device == "cuda" else ""
    return line | {"machine": machine(device)}


def child(name: str, kind: str, device: str) -> dict[str, Any]:
    """Tokens per second and peak memory of some steps."""
    size = (SIZES | GPU_SIZES)[name]
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            batch_size=size.batch,
            micro_batch_size=size.micro_batch,
            max_length=size.length,
            max_steps=size.steps + WARM_UP,
            evaluation_fraction=0.0,
            reduction="token_mean",
            learning_rate=1e-4,
            precision=size.precision,
            gradient_checkpointing=size.checkpointing,
            batching="padded" if kind == "naive" else "packed",
        )
        file = token_file(Path(folder), size)
        steps = Steps(file, training, training.batching)
        before = reset_peak(device)
        step = naive_step(size, steps, device) if kind == "naive" else our_step(size, steps, device, "cached" in kind)
        return measured(step, steps, size, device, before)


def measured(
    step: Callable[[int], dict[str, Any]], steps: Steps, size: Size, device: str, before: float
) -> dict[str, Any]:
    """Run the warm-up and the timed steps."""
    for index in range(WARM_UP):
        step(index)
    events, begin = [], time.perf_counter()
    for index in range(WARM_UP, WARM_UP + size.steps):
        events.append(step(index))
    if device == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - begin
    padding = [steps.padding(index) for index in range(WARM_UP, WARM_UP + size.steps)]
    tokens, positions = sum(p.tokens for p in padding), sum(p.positions for p in padding)
    result = {"tokens_per_second": tokens / elapsed, "peak_mib": highest_mib(device) - before}
    result |= {"padding": 1 - tokens / positions, "loss": events[-1]["loss"]}
    if "time_shares" in events[-1]:
        result["shares"] = events[-1]["time_shares"]
    if device == "cuda":
        result["mfu"] = model_flops(size) * result["tokens_per_second"] / peak_flops()
    return result


def token_file(folder: Path, size: Size) -> TokenFile:
    """Sequences of the lengths that teachers write: many of the full length, the others anything down to an eighth."""
    from helpers.tokens import write_token_file

    generator = torch.Generator().manual_seed(0)
    count = size.batch * (size.steps + WARM_UP)
    shares = 0.125 + 1.1 * torch.rand(count, generator=generator)
    lengths = [min(size.length, int(share * size.length)) for share in shares.tolist()]
    return write_token_file(folder / "tokens", lengths, vocabulary=size.shape["vocab_size"])


def random_model(size: Size, seed: int = 0) -> LlamaForCausalLM:
    """A LLaMA with random weights, in float32."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**COMMON, **size.shape}))


# --- naive -----------------------------------------------------------------------------------------------------------


class NaiveLinear(torch.nn.Linear):
    """Quantises by autograd in every forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, integer(self.weight, 2, 128, scale_dtype=torch.bfloat16), self.bias)


def naive_step(size: Size, steps: Steps, device: str) -> Callable[[int], dict[str, Any]]:
    """The published step in plain torch and transformers."""
    student, teacher = random_model(size).to(device), random_model(size).to(device).eval().requires_grad_(False)
    for name in quantized_linear_names(student):
        student.get_submodule(name).__class__ = NaiveLinear
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.0, fused=True)

    def step(index: int) -> dict[str, Any]:
        total = 0.0
        for batch in steps.micro_batches(index):
            inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
            with torch.no_grad():
                expected = teacher(**inputs).logits
            loss = naive_loss(student(**inputs).logits, expected, batch.labels, steps.counts(index).labels)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": total}

    return step


def naive_loss(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """CAKLD of all logits: both divergences in full, masked at the end."""
    log_s, log_t = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    reverse = (log_s.exp() * (log_s - log_t)).sum(-1)
    forward = (log_t.exp() * (log_t - log_s)).sum(-1)
    return ((GAMMA * reverse + (1 - GAMMA) * forward) * (labels != -100)).sum() / count


# --- ours ------------------------------------------------------------------------------------------------------------


def our_step(size: Size, steps: Steps, device: str, cached: bool) -> Callable[[int], dict[str, Any]]:
    """One step of the stage's own loop."""
    training, world = steps.training, World(device=torch.device(device))
    teacher = open_teacher(size, steps, device, cached)
    if cached:
        gc.collect()
        reset_peak(device)
    model = random_model(size)
    clock = Clock(world.device)
    quantize_linears(model, get_format("int2", "bfloat16"), 128)
    if size.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    engine = SingleEngine(
        Student(model, size.precision, clock), training, world, partial(parameter_groups, rates=training)
    )
    time_quantiser(engine.model, clock)
    objective = Objective(resolve("cakld"), GAMMA, training, teacher, clock)
    loop = Loop(training, engine, steps, objective, world, clock)
    return lambda _: loop.timed_step()


def open_teacher(size: Size, steps: Steps, device: str, cached: bool) -> Any:
    """A live teacher, or its hidden states on the disk, written before memory is counted."""
    model = random_model(size).to(device, getattr(torch, size.precision)).eval().requires_grad_(False)
    if not cached:
        return LiveTeacher(model)
    folder, file = Path(steps.file.directory).parent / "cache", steps.file
    (folder / CHUNKS).mkdir(parents=True)
    for sample in range(len(file)):
        batch = collate(file, ((sample,),), mask_prompt=False, packed=False).to(device)
        hidden = last_hidden_states(model, batch)[batch.sequence >= 0]
        write_chunk(chunk_file(folder / CHUNKS, sample), file, (sample,), {"hidden": hidden.cpu()})
    write_json(folder / DIGEST, {"counts": {"kind": "hidden", "precision": size.precision, "shard": 0, "teacher": ""}})
    weight = model.get_output_embeddings().weight.detach().clone()
    return CachedHiddenTeacher(Cache([folder]), replace(Head.of(model), weight=weight))


# --- on a GPU --------------------------------------------------------------------------------------------------------


def model_flops(size: Size) -> float:
    """
    Floating-point operations of one training token, by the convention of MFU: only what the mathematics needs.

    6 per weight of the student's matrix products (forward 2, backward 4), 2 of the teacher's, and 12 and 4 times layers
    x hidden size x context for attention; recomputed activations, embeddings and the quantiser count nothing.
    """
    shape = size.shape
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    per_layer = 4 * hidden**2 + 3 * hidden * shape["intermediate_size"]
    weights = layers * per_layer + hidden * shape["vocab_size"]
    return (6 + 2) * weights + (12 + 4) * layers * hidden * size.length / 2


def peak_flops() -> float:
    """Dense bfloat16 operations per second of the GPU, from its data sheet."""
    name = torch.cuda.get_device_name()
    return A100_BFLOAT16 if "A100" in name else H100_BFLOAT16


if __name__ == "__main__":
    main()
