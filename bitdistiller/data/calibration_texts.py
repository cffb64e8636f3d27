"""Calibration texts of the clip search (docs/method.md 2)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from bitdistiller.config import Calibration
from bitdistiller.data.rows import Row, column, rows_of
from bitdistiller.errors import InputError

INSTRUCTION = "Instruction:\n{question}\nOutput:\n{answer}"


def _plain(row: Row) -> str:
    if "text" in row or "prompt" not in row:
        return column(row, "text", where="calibration text")
    return f"{row['prompt']}{row.get('completion') or ''}"


def _code(row: Row) -> str:
    question, answer = column(row, "instruction", where="code"), column(row, "output", where="code")
    return INSTRUCTION.format(question=question, answer=answer)


def _gsm8k(row: Row) -> str:
    question, answer = column(row, "question", where="gsm8k"), column(row, "answer", where="gsm8k")
    return INSTRUCTION.format(question=question, answer=answer)


@dataclass(frozen=True)
class TextRule:
    """Where the texts are and how a row becomes a text."""

    text: Callable[[Row], str]
    hub: str | None = None
    name: str | None = None
    split: str = "train"


TEXTS: dict[str, TextRule] = {
    "pile": TextRule(_plain, "mit-han-lab/pile-val-backup", split="validation"),
    "code": TextRule(_code, "nickrosh/Evol-Instruct-Code-80k-v1"),
    "gsm8k": TextRule(_gsm8k, "openai/gsm8k", "main"),
    "text": TextRule(_plain),
    "demo": TextRule(_plain),
}


def calibration_texts(calibration: Calibration) -> list[str]:
    """All non-empty texts of the chosen dataset in an order fixed by the seed; the stage takes as many as it needs."""
    rule = TEXTS[calibration.texts]
    rows = rows_of(calibration.texts, calibration.path, rule.hub, rule.name, rule.split)
    texts = [text for text in (rule.text(row).strip() for row in rows) if text]
    if not texts:
        raise InputError(f"calibration texts {calibration.path or rule.hub}: no text found")
    random.Random(calibration.seed).shuffle(texts)
    return texts
