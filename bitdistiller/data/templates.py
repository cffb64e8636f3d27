"""Prompt templates of the published recipes (docs/method.md 3), one function per dataset: row to prompt or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bitdistiller.data.rows import Row, column

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
STEP_BY_STEP = " Let's think step by step."
LONGEST_QUESTION = 1024


def instruction_prompt(instruction: str, context: str = "") -> str:
    """The Alpaca instruction template, with its input part when there is one."""
    return (
        ALPACA_INPUT.format(instruction=instruction, input=context)
        if context
        else ALPACA.format(instruction=instruction)
    )


def math_prompt(question: str) -> str:
    """The MetaMath template: the instruction template and the call to reason step by step."""
    return instruction_prompt(question) + STEP_BY_STEP


def _alpaca(row: Row) -> str:
    instruction, context = column(row, "instruction", where="alpaca"), str(row.get("input") or "")
    return f"{instruction}\n{context}\n" if context else f"{instruction}\n"


def _alpaca_solar(row: Row) -> str:
    return f"### User: \n{_alpaca(row)}\n### Assistant:\n"


def _openorca_solar(row: Row) -> str | None:
    question = column(row, "question", where="openorca-solar")
    if len(question) > LONGEST_QUESTION:
        return None
    system = str(row.get("system_prompt") or "")
    head = f"### System:\n{system}\n\n" if system else ""
    return f"{head}### User: \n{question}\n\n### Assistant:\n"


def _ultra_solar(row: Row) -> str | None:
    prompt = column(row, "prompt", where="ultra-solar")
    return f"### User: \n{prompt}\n\n### Assistant:\n" if len(prompt) <= LONGEST_QUESTION else None


def _code(row: Row) -> str:
    return instruction_prompt(column(row, "instruction", where="code"), str(row.get("input") or ""))


def _math(row: Row) -> str:
    return math_prompt(column(row, "query", "question", where="math"))


def _given(row: Row) -> str:
    return column(row, "prompt", where="prompts")


@dataclass(frozen=True)
class DatasetRule:
    """Where a dataset is and what its prompt is; `prompt` None means the start of the document in column `text`."""

    hub: str | None = None
    name: str | None = None
    split: str = "train"
    prompt: Callable[[Row], str | None] | None = None
    first_rows: int | None = None


DATASETS: dict[str, DatasetRule] = {
    "wikitext": DatasetRule("wikitext", "wikitext-2-raw-v1"),
    "redpajama": DatasetRule("togethercomputer/RedPajama-Data-1T-Sample"),
    "alpaca": DatasetRule("yahma/alpaca-cleaned", prompt=_alpaca),
    "alpaca-solar": DatasetRule("yahma/alpaca-cleaned", prompt=_alpaca_solar),
    "openorca-solar": DatasetRule("Open-Orca/OpenOrca", prompt=_openorca_solar, first_rows=20000),
    "ultra-solar": DatasetRule("allenai/ultrafeedback_binarized_cleaned", split="train_sft", prompt=_ultra_solar),
    "code": DatasetRule("nickrosh/Evol-Instruct-Code-80k-v1", prompt=_code),
    "math": DatasetRule("meta-math/MetaMathQA-40K", prompt=_math),
    "text": DatasetRule(),
    "prompts": DatasetRule(prompt=_given),
    "demo-text": DatasetRule(),
    "demo-math": DatasetRule(prompt=_given),
    "demo-code": DatasetRule(prompt=_given),
}
