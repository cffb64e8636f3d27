"""Generated functions, run with their tests in the sandbox: pass@1 (docs/method.md 5)."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bitdistiller.config import CodeEvaluation
from bitdistiller.data.rows import Row, column
from bitdistiller.data.templates import instruction_prompt
from bitdistiller.evaluation.answers import answers, protocol
from bitdistiller.evaluation.batches import Record, in_batches, slices, total
from bitdistiller.evaluation.datasets import rows
from bitdistiller.evaluation.metrics import Metric, proportion, unmeasured
from bitdistiller.evaluation.sandbox import Outcome, Sandbox, Unavailable
from bitdistiller.evaluation.subject import Subject
from bitdistiller.evaluation.writing import Written
from bitdistiller.stages import Stage

logger = logging.getLogger(__name__)

INSTRUCTION = "Create a Python script for this problem:\n"
BLOCK, FENCE = "```python", "```"
ENDINGS = ('if __name__ == "__main__":', "# Example usage")
MOST_AT_ONCE = 8
RUNS_PER_BATCH = 32
UNIT = "problems"


@dataclass(frozen=True)
class CodeDataset:
    """
    How a row becomes a prompt, and a completion the rest of a program that begins with the row's prompt.

    imports: what the dataset's tests use without importing it (column `test_imports` of MBPP's own files).
    """

    prompt: Callable[[str], str]
    body: Callable[[str], str]
    imports: str = ""


def predict(stage: Stage, evaluation: CodeEvaluation, subject: Subject | Written) -> tuple[list[Record], Record]:
    """
    One record per problem: prompt, completion, program, and how it ended (`status`, `detail`, `passed`).

    `passed` is None, with the reason in `detail`, where this machine offers no isolation: nothing is run then.
    """
    dataset = DATASETS[evaluation.dataset]
    everything = rows(evaluation.dataset, evaluation.path)
    items = everything[: evaluation.max_items]
    starts = [column(row, "prompt", where=evaluation.dataset) for row in items]
    checks = [_checks(row, evaluation.dataset) for row in items]
    prompts = [dataset.prompt(start) for start in starts]
    found = answers(stage, evaluation, evaluation.dataset, prompts, subject)
    programs = [start + dataset.body(answer["completion"]) for start, answer in zip(starts, found, strict=True)]
    outcomes = run_programs(stage, evaluation, programs, checks, Sandbox.probe())
    records = [
        {"id": _name(row, index), "prompt": prompt, **answer, "program": program, **outcome}
        for index, (row, prompt, answer, program, outcome) in enumerate(
            zip(items, prompts, found, programs, outcomes, strict=True)
        )
    ]
    limits = {"timeout": evaluation.timeout, "memory_mb": evaluation.memory_mb}
    return records, protocol(evaluation, evaluation.dataset) | limits | total(len(items), len(everything))


def measure(records: Sequence[Record], _: CodeEvaluation) -> dict[str, Metric]:
    """The share of all problems whose only attempt passed its tests."""
    not_run = [record["detail"] for record in records if record["passed"] is None]
    if not_run:
        return {"pass@1": unmeasured(f"not run: {not_run[0]}", len(records), UNIT, higher_is_better=True)}
    return {"pass@1": proportion([float(record["passed"]) for record in records], UNIT)}


def run_programs(
    stage: Stage,
    evaluation: CodeEvaluation,
    programs: Sequence[str],
    checks: Sequence[str],
    sandbox: Sandbox | Unavailable,
) -> list[Record]:
    """`status`, `detail` and `passed` of each program; several run at once, each within the limits for one."""
    if isinstance(sandbox, Unavailable):
        logger.warning("the generated programs are not run: %s", sandbox.reason)
        return [{"status": "not run", "detail": sandbox.reason, "passed": None} for _ in programs]

    def one(index: int) -> Record:
        return _record(sandbox.run(programs[index], checks[index], evaluation.timeout, evaluation.memory_mb))

    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MOST_AT_ONCE)) as pool:
        batches = slices(range(len(programs)), RUNS_PER_BATCH)
        return in_batches(stage, "programs", batches, lambda batch: list(pool.map(one, batch)), "program")


def _record(outcome: Outcome) -> Record:
    if outcome.status == "unavailable":
        raise RuntimeError(f"the sandbox, which worked when it was tried, did not start: {outcome.detail}")
    return {"status": outcome.status, "detail": outcome.detail, "passed": outcome.passed}


def _checks(row: Row, where: str) -> str:
    test, entry_point = (column(row, name, where=where) for name in ("test", "entry_point"))
    return f"{DATASETS[where].imports}{test}\n\ncheck({entry_point})\n"


def _name(row: Row, index: int) -> str | int:
    return row.get("task_id", row.get("id", index))


def instruction(start: str) -> str:
    """The instruction template around a function's start, whose indents of four spaces become tabs."""
    return instruction_prompt(INSTRUCTION + start.replace("    ", "\t"))


def block_of_code(completion: str) -> str:
    """The first block of Python in an answer (all of it where there is none) up to its main part or examples."""
    text = completion.replace("\t", "    ")
    if BLOCK in text:
        text = text.partition(BLOCK)[2].partition(FENCE)[0]
    for ending in ENDINGS:
        text = text.partition(ending)[0]
    return text.strip("\n").rstrip() + "\n"


def indented_lines(completion: str) -> str:
    """A function's body: the lines up to the first that is neither indented nor blank."""
    lines = itertools.takewhile(lambda line: not line.strip() or line[0].isspace(), completion.splitlines())
    return "\n".join(lines).rstrip() + "\n"


DATASETS: dict[str, CodeDataset] = {
    "humaneval": CodeDataset(prompt=instruction, body=block_of_code),
    "mbpp": CodeDataset(prompt=instruction, body=block_of_code, imports="import math\n"),
    "demo-code": CodeDataset(prompt=str, body=indented_lines),
}
