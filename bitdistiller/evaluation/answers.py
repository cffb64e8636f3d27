"""The model's answers to the prompts of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from bitdistiller.config import GenerativeEvaluation
from bitdistiller.data.prompts import prompt_seed
from bitdistiller.evaluation.batches import Record, in_batches, slices
from bitdistiller.evaluation.subject import Subject
from bitdistiller.evaluation.writing import Written
from bitdistiller.generation.engine import Sampling
from bitdistiller.stages import Stage

NO_ROOM = "no room"


def answers(
    stage: Stage,
    evaluation: GenerativeEvaluation,
    dataset: str,
    prompts: Sequence[str],
    subject: Subject | Written,
    attempts: Sequence[int] | None = None,
) -> list[Record]:
    """
    One record per prompt, in order: `completion`, `completion_tokens` and `finish_reason` (`eos`, `length`, or
    `no room` for a prompt that fills the model's context, whose completion is empty).

    Groups are fixed slices of the prompts sorted by length; each prompt is sampled with a seed of its own. attempts: of
    a prompt that comes more than once, the number of each (None: all 0), which gives each another seed.
    """
    drawn = [dataset if not attempt else f"{dataset}#{attempt}" for attempt in attempts or [0] * len(prompts)]
    lengths = [subject.engine.prompt_length(prompt) for prompt in prompts]
    fitting = [index for index, length in enumerate(lengths) if length < subject.context]
    fitting.sort(key=lambda index: (lengths[index], index))
    sampling = Sampling(evaluation.max_new_tokens, evaluation.temperature, evaluation.top_p)

    def work(batch: Sequence[int]) -> list[Record]:
        texts = [prompts[index] for index in batch]
        seeds = [prompt_seed(evaluation.seed, drawn[index], prompts[index]) for index in batch]
        completions = subject.engine.complete(texts, seeds, sampling)
        return [
            {"index": i, "completion": c.text, "completion_tokens": len(c.token_ids), "finish_reason": c.finish_reason}
            for i, c in zip(batch, completions, strict=True)
        ]

    groups = slices(fitting, evaluation.group(evaluation.batch_size))
    found = in_batches(stage, "answers", groups, work, "answer")
    by_index = {record.pop("index"): record for record in found}
    nothing = {"completion": "", "completion_tokens": 0, "finish_reason": NO_ROOM}
    return [by_index.get(index, nothing) for index in range(len(prompts))]


def protocol(evaluation: GenerativeEvaluation, dataset: str) -> Record:
    """What every generative evaluation says about how it was measured."""
    return {
        "dataset": dataset,
        "temperature": evaluation.temperature,
        "max_new_tokens": evaluation.max_new_tokens,
        "seed": evaluation.seed if evaluation.temperature else None,
    } | ({"top_p": evaluation.top_p} if evaluation.top_p < 1 else {})
