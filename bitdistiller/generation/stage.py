"""The stage `generate`: one shard of teacher completions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitdistiller.config import Mix
from bitdistiller.data.fetch import check_layout
from bitdistiller.data.prompts import mix_prompts, shard_prompts
from bitdistiller.data.tokenising import vocabulary_digest, vocabulary_size
from bitdistiller.errors import InputError
from bitdistiller.generation.engine import Sampling, Wanted
from bitdistiller.generation.engines import open_engine, settle
from bitdistiller.generation.shards import Record, batch_file, collect, complete_batches, plan_batches
from bitdistiller.stages import open_stage
from bitdistiller.stages.files import json_line

COMPLETIONS = "completions.jsonl"


def run(
    recipe: Mix,
    *,
    model: Path,
    dtype: str,
    shard: int,
    shards: int,
    output: Path,
    work: Path | None,
    time_budget: float | None,
) -> None:
    """Complete the prompts of shard `shard` of `shards` with the model; resumes after the last durable group."""
    if not 0 <= shard < shards:
        raise InputError(f"--shard {shard}: must be from 0 to {shards - 1}")
    check_layout(model)
    local = {f"source-{i}": source.path for i, source in enumerate(recipe.sources) if source.path is not None}
    elsewhere = {"teacher", "shards", "allow_fewer"}
    identity = {"mix": recipe.model_dump(mode="json", exclude_defaults=True, exclude=elsewhere)}
    identity |= {"dtype": dtype, "shard": shard, "shards": shards}
    with open_stage(
        "generate",
        version=2,
        recipe=identity,
        inputs={"model": model, **local},
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        settings = recipe.generation
        name = settle(settings.engine, stage.work)
        wanted = Wanted(model, dtype, settings.longest, settings.tensor_parallel, settings.batch_size)
        engine = open_engine(name, wanted)
        prompts = shard_prompts(mix_prompts(recipe, engine.tokenizer), shard, shards)
        longest = min(settings.max_prompt_tokens, engine.context - 1)
        batches = plan_batches(engine, prompts, longest, settings.group(settings.batch_size))
        sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, settings.top_k)
        done = sum(len(batch) for i, batch in enumerate(batches) if batch_file(stage.work, i).exists())
        progress = stage.progress(f"shard {shard} of {shards}", sum(map(len, batches)), done, "prompt")
        with progress as bar, stage.deadline.excusing():
            for count in complete_batches(engine, batches, sampling, stage.work, stage.deadline.check):
                stage.commit()
                bar.advance(count)
            rate = bar.rate
        records = collect(stage.work, batches, prompts)
        with stage.output_file(COMPLETIONS).open("w", encoding="utf-8") as handle:
            handle.writelines(map(json_line, records))
        counts = _counts(records, len(prompts)) | {"vocabulary": vocabulary_digest(engine.tokenizer)}
        if any(source.prompt_count is None for source in recipe.sources):
            counts["vocabulary_size"] = vocabulary_size(engine.tokenizer)
        stage.finish(counts=counts, details={"engine": name, "prompts_per_second": rate})


def _counts(records: Sequence[Record], prompts: int) -> dict[str, int]:
    return {
        "prompts": prompts,
        "too_long": prompts - len(records),
        "completions": len(records),
        "prompt_tokens": sum(record["prompt_tokens"] for record in records),
        "completion_tokens": sum(record["completion_tokens"] for record in records),
        "ended": sum(record["finish_reason"] == "eos" for record in records),
    }
