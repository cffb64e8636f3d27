"""What lies in a model directory, read from its small files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bitdistiller.config import Quantization
from bitdistiller.errors import InputError
from bitdistiller.stages.files import read_json
from bitdistiller.stages.unavailable import why_unavailable

STUDENT_RECORD = "bitdistiller.json"
TRAIN_SCALES = "train_scales"
COMPANIONS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
)


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a model directory; InputError where there is none."""
    path = Path(directory) / "config.json"
    reason = why_unavailable(directory)
    if reason:
        raise InputError(f"{directory}: holds no model: {reason}")
    if not path.is_file():
        inner = [name for name in ("checkpoint", "student") if (Path(directory) / name / "config.json").is_file()]
        hint = f"; did you mean {Path(directory) / inner[0]}?" if inner else ""
        raise InputError(f"{path}: no such file; accepted: a model directory in Hugging Face layout{hint}")
    return read_json(path)


def quant_method(config: dict[str, Any]) -> str | None:
    """How the weights of a model directory are stored; None for ordinary tensors."""
    return (config.get("quantization_config") or {}).get("quant_method")


def student_quantization(directory: Path) -> Quantization | None:
    """The quantization a student's master weights were trained for; None for other directories."""
    path = Path(directory) / STUDENT_RECORD
    return parse_quantization(path, read_json(path)) if path.is_file() else None


def has_trained_grid(directory: Path) -> bool:
    """Whether a student's scales and zero points were trained, and lie in a file beside its master weights."""
    path = Path(directory) / STUDENT_RECORD
    return path.is_file() and bool(read_json(path).get(TRAIN_SCALES, False))


def parse_quantization(origin: Path, record: dict[str, Any]) -> Quantization:
    """The quantization part of a record; InputError that names `origin` when it is not one."""
    try:
        return Quantization(**{key: record[key] for key in Quantization.model_fields if key in record})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{origin}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def companions(directory: Path) -> list[Path]:
    """Files that belong to a model beside config and weights: tokenizer, generation defaults, licence."""
    found = {path for pattern in COMPANIONS for path in Path(directory).glob(pattern)}
    return sorted(path for path in found if path.is_file())
