"""The stage `mix`: verified shards in, one shuffled training file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitdistiller.config import Mix
from bitdistiller.data.mixing import check_complete, mix_records
from bitdistiller.data.vocabulary import whole_count
from bitdistiller.errors import InputError
from bitdistiller.stages import DIGEST, open_stage, verify
from bitdistiller.stages.files import json_line, read_json, read_json_lines

COMPLETIONS = "completions.jsonl"
MIX = "mix.jsonl"


def run(recipe: Mix, *, shards: list[Path], output: Path, work: Path | None, time_budget: float | None) -> None:
    """Merge the shard directories into `output`/mix.jsonl; counts per source are in its digest.json."""
    if not shards:
        raise InputError("mix: give at least one shard directory (--shard)")
    inputs = {f"shard-{index:05d}": path / COMPLETIONS for index, path in enumerate(shards)}
    with open_stage(
        "mix", version=1, recipe=recipe, inputs=inputs, output=output, work=work, time_budget=time_budget
    ) as stage:
        for path in shards:
            verify(path)
        records = [record for path in shards for record in read_json_lines(path / COMPLETIONS)]
        shard_counts = [read_json(path / DIGEST)["counts"] for path in shards]
        for path, counts in zip(shards, shard_counts, strict=True):
            if "vocabulary" not in counts:
                raise InputError(f"mix: {path}: not the output of a generate stage; give the directory of a shard")
        vocabularies = {counts["vocabulary"] for counts in shard_counts}
        if len(vocabularies) > 1:
            raise InputError("mix: the shards were written by models with different vocabularies; give those of one")
        dropped = sum(counts["too_long"] for counts in shard_counts)
        expected = _expected(recipe, shard_counts)
        check_complete([record["id"] for record in records], dropped, expected)
        mixed = mix_records(recipe, records)
        with stage.output_file(MIX).open("w", encoding="utf-8") as handle:
            handle.writelines(map(json_line, mixed.records))
        tokens = sum(record["prompt_tokens"] + record["completion_tokens"] for record in mixed.records)
        sources = [count.as_json() for count in mixed.sources]
        counts = {"samples": len(mixed.records), "tokens": tokens, "sources": sources, "prompts_too_long": dropped}
        stage.finish(counts=counts | {"vocabulary": vocabularies.pop()})


def _expected(recipe: Mix, shard_counts: list[dict[str, Any]]) -> int:
    """Prompts of all shards together; those of a whole vocabulary are as many as the shards say that it has tokens."""
    size = max(counts.get("vocabulary_size", 0) for counts in shard_counts)
    counts = (
        whole_count(source, size) if source.prompt_count is None else source.prompt_count for source in recipe.sources
    )
    return sum(counts)
