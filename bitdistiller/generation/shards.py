"""A shard: sorted by length, cut into fixed batches, each batch durable before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitdistiller.data.prompts import Prompt
from bitdistiller.generation.engine import Completion, Engine, Sampling
from bitdistiller.stages.files import json_line, read_json_lines, write_text

Record = dict[str, Any]


def plan_batches(engine: Engine, prompts: Sequence[Prompt], max_prompt_tokens: int, size: int) -> list[list[Prompt]]:
    """
    Fixed batches of at most `size` prompts in order of token length; longer prompts than `max_prompt_tokens` drop out.

    The batches depend on the prompts and the recipe alone, so an interrupted shard meets the same ones again.
    """
    lengths = {prompt.id: len(prompt.ids) or engine.prompt_length(prompt.text) for prompt in prompts}
    kept = [prompt for prompt in prompts if lengths[prompt.id] <= max_prompt_tokens]
    kept.sort(key=lambda prompt: (lengths[prompt.id], prompt.id))
    return [kept[start : start + size] for start in range(0, len(kept), size)]


def batch_file(work: Path, index: int) -> Path:
    """Where the completions of one batch are kept."""
    return work / "batches" / f"{index:06d}.jsonl"


def complete_batches(
    engine: Engine, batches: list[list[Prompt]], sampling: Sampling, work: Path, before: Callable[[], None]
) -> Iterator[int]:
    """Complete the batches that have no file yet; yields the number of prompts after each has become durable."""
    for index, batch in enumerate(batches):
        path = batch_file(work, index)
        if path.exists():
            continue
        before()
        completions = complete_prompts(engine, batch, sampling)
        lines = [record(prompt, completion) for prompt, completion in zip(batch, completions, strict=True)]
        write_text(path, "".join(map(json_line, lines)))
        yield len(batch)


def complete_prompts(engine: Engine, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
    """One completion per prompt, in order: its greedy tokens first, then what is drawn behind them."""
    starts: dict[str, Completion] = {}
    for greedy in sorted({prompt.greedy for prompt in prompts} - {0}):
        some = [prompt for prompt in prompts if prompt.greedy == greedy]
        begun = engine.complete([list(p.ids) for p in some], [p.seed for p in some], Sampling(greedy))
        starts |= {prompt.id: start for prompt, start in zip(some, begun, strict=True)}
    drawn: dict[str, Completion] = {}
    for greedy in sorted({prompt.greedy for prompt in prompts}):
        some = [
            p for p in prompts if p.greedy == greedy and not (p.id in starts and starts[p.id].finish_reason == "eos")
        ]
        given = [[*p.ids, *starts[p.id].token_ids] if greedy else (list(p.ids) or p.text) for p in some]
        limited = replace(sampling, max_new_tokens=sampling.max_new_tokens - greedy)
        found = engine.complete(given, [p.seed for p in some], limited) if limited.max_new_tokens else []
        drawn |= {prompt.id: rest for prompt, rest in zip(some, found, strict=False)}
    return [_joined(engine, prompt, starts.get(prompt.id), drawn.get(prompt.id)) for prompt in prompts]


def _joined(engine: Engine, prompt: Prompt, start: Completion | None, rest: Completion | None) -> Completion:
    if start is None or rest is None:
        found = start or rest
        assert found is not None
        return found
    ids = start.token_ids + rest.token_ids
    text = engine.tokenizer.decode(ids, skip_special_tokens=True)
    return Completion(text, ids, len(prompt.ids), rest.finish_reason)


def record(prompt: Prompt, completion: Any) -> Record:
    """One line of the shard."""
    given = {"prompt_ids": list(prompt.ids)} if prompt.ids else {}
    return given | {
        "id": prompt.id,
        "dataset": prompt.dataset,
        "prompt": prompt.text,
        "completion": completion.text,
        "completion_ids": completion.token_ids,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "seed": prompt.seed,
    }


def collect(work: Path, batches: list[list[Prompt]], prompts: Sequence[Prompt]) -> list[Record]:
    """All records of the shard in the order of its prompts, which does not depend on the batch size."""
    found = {line["id"]: line for i in range(len(batches)) for line in read_json_lines(batch_file(work, i))}
    return [found[prompt.id] for prompt in prompts if prompt.id in found]
