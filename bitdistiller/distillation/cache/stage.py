"""The stage `cache-teacher`: one shard of the samples through the teacher, once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from bitdistiller.config import CacheRecipe
from bitdistiller.data.fetch import check_layout
from bitdistiller.data.tokenising import vocabulary_digest
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation.batches import collate
from bitdistiller.distillation.cache.chunks import (
    CHUNKS,
    chunk_file,
    hand_over,
    plan_batches,
    remove_leftovers,
    shard_samples,
    write_chunk,
)
from bitdistiller.distillation.cache.kinds import KINDS
from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.teacher import last_hidden_states, load_teacher
from bitdistiller.errors import InputError
from bitdistiller.stages import Stage, input_digest, open_stage, verify


def run(
    recipe: CacheRecipe,
    *,
    model: Path,
    tokens: Path,
    shard: int,
    shards: int,
    output: Path,
    work: Path | None,
    time_budget: float | None,
) -> None:
    """Write shard `shard` of `shards` of what `recipe` keeps of the teacher `model`; goes on after the last batch."""
    if not 0 <= shard < shards:
        raise InputError(f"--shard {shard}: must be from 0 to {shards - 1}")
    check_layout(model)
    file = TokenFile(tokens)
    check_teacher(model, file)
    samples = shard_samples(len(file), shard, shards)
    if not samples:
        raise InputError(f"--num-shards {shards}: {tokens} has only {len(file)} samples; give fewer shards")
    identity = recipe.model_dump(mode="json", exclude_defaults=True) | {"shard": shard, "shards": shards}
    inputs = {"model": model, "tokens": tokens}
    with open_stage(
        "cache-teacher", version=1, recipe=identity, inputs=inputs, output=output, work=work, time_budget=time_budget
    ) as stage:
        verify(tokens)
        batches = plan_batches(file, samples, recipe.batch_tokens)
        rate = _run_batches(recipe, stage, model, file, batches)
        hand_over(stage.work / CHUNKS, stage.output_directory(CHUNKS))
        origin = {"tokens": input_digest(tokens), "teacher": input_digest(model), "shard": shard, "shards": shards}
        stage.finish(counts=_counts(recipe, model, file, samples) | origin, details={"tokens_per_second": rate})
        shutil.rmtree(stage.work / CHUNKS)


def check_teacher(model: Path, file: TokenFile) -> None:
    """Raises InputError where the token file has another vocabulary than the teacher."""
    counts = file.counts
    rows = AutoConfig.from_pretrained(model).get_text_config().vocab_size
    same = vocabulary_digest(AutoTokenizer.from_pretrained(model)) == counts["vocabulary"]
    if not same or rows < counts["vocabulary_size"]:
        raise InputError(
            f"cache-teacher: the tokens {file.directory} were written with another vocabulary than that of {model}"
        )


def _run_batches(
    recipe: CacheRecipe, stage: Stage, model: Path, file: TokenFile, batches: list[tuple[int, ...]]
) -> float:
    directory = stage.work / CHUNKS
    remove_leftovers(directory)
    left = [(i, samples) for i, samples in enumerate(batches) if not chunk_file(directory, i).exists()]
    total = sum(int(file.lengths[list(samples)].sum()) for samples in batches)
    ahead = sum(int(file.lengths[list(samples)].sum()) for _, samples in left)
    with stage.progress("teacher", total, total - ahead, "token") as bar:
        for index, samples, rows in _forward(recipe, stage, model, file, left):
            write_chunk(chunk_file(directory, index), file, samples, rows)
            stage.commit()
            bar.advance(int(file.lengths[list(samples)].sum()))
        return bar.rate


@torch.no_grad()
def _forward(
    recipe: CacheRecipe, stage: Stage, model: Path, file: TokenFile, batches: list[tuple[int, tuple[int, ...]]]
) -> Iterator[tuple[int, tuple[int, ...], dict[str, torch.Tensor]]]:
    if not batches:
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = load_teacher(model, recipe.precision, device)
    head = Head.of(teacher).cut(file.counts["vocabulary_size"])
    for index, samples in batches:
        stage.deadline.check()
        batch = collate(file, tuple((sample,) for sample in samples), mask_prompt=False, packed=False).to(device)
        real = batch.sequence >= 0
        hidden = last_hidden_states(teacher, batch)[real]
        rows = KINDS[recipe.kind](hidden, batch.targets[real], head, recipe.k)
        yield index, samples, {name: tensor.cpu() for name, tensor in rows.items()}


def _counts(recipe: CacheRecipe, model: Path, file: TokenFile, samples: range) -> dict[str, Any]:
    return {
        "kind": recipe.kind,
        "k": recipe.k if recipe.kind == "topk" else None,
        "precision": recipe.precision,
        "first_sample": samples.start,
        "samples": len(samples),
        "token_count": int(file.lengths[samples.start : samples.stop].sum()),
        "hidden_size": AutoConfig.from_pretrained(model).get_text_config().hidden_size,
        "vocabulary": file.counts["vocabulary"],
        "vocabulary_size": file.counts["vocabulary_size"],
    }
