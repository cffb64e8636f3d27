"""Generated functions, run with their tests in the sandbox: pass@k (docs/method.md 5)."""

from __future__ import annotations

import itertools
import logging
import math
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
    One record per program: prompt, completion, program, and how it ended (`status`, `detail`, `passed`); where a
    problem has several, one after the other, `attempt` is the number of each.

    `passed` is None, with the reason in `detail`, where this machine offers no isolation: nothing is run then.
    """
    dataset = DATASETS[evaluation.dataset]
    everything = rows(evaluation.dataset, evaluation.path)
    items = everything[: evaluation.max_items]
    starts = [_start(row, evaluation.dataset) for row in items]
    checks = [_checks(row, evaluation.dataset) for row in items]
    tries = [(index, attempt) for index in range(len(items)) for attempt in range(evaluation.samples)]
    prompts = [dataset.prompt(starts[index]) for index, _ in tries]
    found = answers(stage, evaluation, evaluation.dataset, prompts, subject, [attempt for _, attempt in tries])
    programs = [starts[i] + dataset.body(answer["completion"]) for (i, _), answer in zip(tries, found, strict=True)]
    outcomes = run_programs(stage, evaluation, programs, [checks[index] for index, _ in tries], Sandbox.probe())
    several = evaluation.samples > 1
    records = [
        {"id": _name(items[index], index)}
        | ({"attempt": attempt} if several else {})
        | {"prompt": prompt, **answer, "program": program, **outcome}
        for (index, attempt), prompt, answer, program, outcome in zip(
            tries, prompts, found, programs, outcomes, strict=True
        )
    ]
    limits = {"timeout": evaluation.timeout, "memory_mb": evaluation.memory_mb}
    limits |= {"samples": evaluation.samples} if several else {}
    return records, protocol(evaluation, evaluation.dataset) | limits | total(len(items), len(everything))


def measure(records: Sequence[Record], evaluation: CodeEvaluation) -> dict[str, Metric]:
    """pass@k, the estimate of every problem averaged over all problems; standard errors are over problems."""
    by_problem = slices(records, evaluation.samples)
    not_run = [record["detail"] for record in records if record["passed"] is None]
    if not_run:
        reason = f"not run: {not_run[0]}"
        return {f"pass@{k}": unmeasured(reason, len(by_problem), UNIT, higher_is_better=True) for k in evaluation.k}
    passed = [sum(record["passed"] for record in tries) for tries in by_problem]
    return {f"pass@{k}": proportion([pass_at(k, evaluation.samples, c) for c in passed], UNIT) for k in evaluation.k}


def pass_at(k: int, n: int, c: int) -> float:
    """
    `1 - C(n - c, k) / C(n, k)`: the unbiased estimate of pass@k from n programs of which c passed.

    As a product, whose factors are all in 0..1 (Chen et al., arXiv 2107.03374, equation 1).
    """
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


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


def _start(row: Row, where: str) -> str:
    """The start of the program: the row's prompt, or of MBPP's own rows the task and its first test as a docstring."""
    if row.get("prompt") is not None or not row.get("test_list"):
        return column(row, "prompt", where=where)
    return f'"""\n{column(row, "text", where=where)}\n{row["test_list"][0]}\n"""\n'


def _checks(row: Row, where: str) -> str:
    if row.get("test_list"):
        setup = row.get("test_setup_code") or ""
        return "\n".join([DATASETS[where].imports + setup, *row["test_list"], ""])
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
