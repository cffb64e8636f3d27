"""Word problems: exact match of the number after "The answer is: " (docs/method.md 5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from bitdistiller.config import MathEvaluation
from bitdistiller.data.rows import Row, column
from bitdistiller.data.templates import math_prompt
from bitdistiller.errors import InputError
from bitdistiller.evaluation.answers import answers, protocol
from bitdistiller.evaluation.batches import Record, total
from bitdistiller.evaluation.datasets import rows
from bitdistiller.evaluation.metrics import Metric, proportion
from bitdistiller.evaluation.subject import Subject
from bitdistiller.evaluation.writing import Written
from bitdistiller.stages import Stage

ANSWER = re.compile(r"The answer is:[^\S\n]*([^\n]*)")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:\s*/\s*[1-9]\d*(?!\.\d))?")
DECORATION = str.maketrans({"−": "-", "–": "-", **dict.fromkeys("$€£*\\{}", None)})


def predict(stage: Stage, evaluation: MathEvaluation, subject: Subject | Written) -> tuple[list[Record], Record]:
    """One record per problem: prompt, completion, the number read from it, the right one, and `correct`."""
    prompt_of, gold_of = DATASETS[evaluation.dataset]
    everything = rows(evaluation.dataset, evaluation.path)
    items = everything[: evaluation.max_items]
    prompts = [prompt_of(row) for row in items]
    golds = [gold_of(row) for row in items]
    found = answers(stage, evaluation, evaluation.dataset, prompts, subject)
    records = [
        {"id": row.get("id", index), "prompt": prompt, **answer, **grade(answer["completion"], gold)}
        for index, (row, prompt, gold, answer) in enumerate(zip(items, prompts, golds, found, strict=True))
    ]
    return records, protocol(evaluation, evaluation.dataset) | total(len(items), len(everything))


def measure(records: Sequence[Record], _: MathEvaluation) -> dict[str, Metric]:
    """The share of all problems that were answered correctly; no answer counts as a wrong one."""
    return {"exact_match": proportion([float(record["correct"]) for record in records], "questions")}


def grade(completion: str, gold: Fraction) -> Record:
    """The answer of a completion beside the right one; numbers as text, `answer` None where there is none."""
    answer = parse_answer(completion)
    return {"answer": None if answer is None else str(answer), "gold": str(gold), "correct": answer == gold}


def parse_answer(completion: str) -> Fraction | None:
    """
    The number after the first "The answer is: ", on the same line; None where there is none.

    The first, because a model that does not stop goes on with a problem of its own.
    """
    found = ANSWER.search(completion)
    return None if found is None else parse_number(found.group(1))


def parse_number(text: str) -> Fraction | None:
    """The first number in `text`: sign, thousands commas, decimals, fractions, currency signs, LaTeX or bold marks."""
    found = NUMBER.search(THOUSANDS.sub("", text.translate(DECORATION)))
    return None if found is None else Fraction(re.sub(r"\s", "", found.group()))


def _gsm8k_prompt(row: Row) -> str:
    return math_prompt(column(row, "question", "query", where="gsm8k"))


def _gsm8k_gold(row: Row) -> Fraction:
    answer = column(row, "answer", where="gsm8k")
    return _gold(answer.rpartition("####")[2], "gsm8k")


def _demo_prompt(row: Row) -> str:
    return column(row, "prompt", where="demo-math")


def _demo_gold(row: Row) -> Fraction:
    return _gold(column(row, "answer", where="demo-math"), "demo-math")


def _gold(text: str, where: str) -> Fraction:
    number = parse_number(text)
    if number is None:
        raise InputError(f"dataset {where}: a row's answer ends in {text.strip()[:80]!r}, where a number was expected")
    return number


DATASETS: dict[str, tuple[Callable[[Row], str], Callable[[Row], Fraction]]] = {
    "gsm8k": (_gsm8k_prompt, _gsm8k_gold),
    "demo-math": (_demo_prompt, _demo_gold),
}
