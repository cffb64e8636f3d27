"""Result files of other stages, read with suspicion: a damaged or missing one is reported and skipped."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from bitdistiller.stages import DIGEST
from bitdistiller.stages.digest import hash_file

logger = logging.getLogger(__name__)

Content = TypeVar("Content", bound=BaseModel)


class Metric(BaseModel):
    """One entry of `metrics.json`; `value` is None when it could not be measured, and `reason` says why."""

    value: float | None
    """Perplexity, nats per token, or a fraction in 0..1."""
    standard_error: float | None = None
    n: int | None = None
    """Items the value averages over."""
    unit: str | None = None
    """What the items are called."""
    higher_is_better: bool | None = None
    reason: str | None = None
    total: int | None = None
    """Items that there are, where n of them were taken."""
    quantity: str | None = None
    """What the value is, where the kind of evaluation does not say: fraction, nats."""


class MetricsFile(BaseModel):
    """The content of `metrics.json`."""

    kind: str
    metrics: dict[str, Metric] = Field(min_length=1)
    protocol: dict[str, Any] = {}
    """How it was measured: chunk length, temperature, few-shot examples ..."""


class ExportFile(BaseModel):
    """What the tables need of `export.json`."""

    bits_per_weight: float | None
    """None where the run has no packed model; its evaluations say why."""
    file_bytes: int | None = None
    minimum_bits_per_weight: float | None = None
    minimum_bytes: int | None = None
    weights: str | None = None
    """What was packed; None where there is no checkpoint."""
    verified: dict[str, Any] | None = None
    """What was compared after writing."""


class DigestFile(BaseModel):
    """The content of `digest.json`."""

    files: dict[str, dict[str, Any]]
    counts: dict[str, Any] = {}


class Sources:
    """Reads files below a results directory; `used` lists those that were whole, by relative path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.used: dict[str, Path] = {}

    def read(self, name: Path, model: type[Content]) -> Content | None:
        """The JSON file `name` as `model`, or None when it is missing or damaged."""
        text = self._text(name)
        if text is None:
            return None
        try:
            content = model.model_validate(json.loads(text))
        except ValueError as error:
            logger.warning("%s: damaged (%s); counted as not finished", self.root / name, _first_line(error))
            return None
        self.used[name.as_posix()] = self.root / name
        return content

    def read_lines(self, name: Path) -> list[dict[str, Any]]:
        """The JSON objects of the lines of `name`; damaged lines are skipped, a missing file has none."""
        text = self._text(name)
        if text is None:
            return []
        lines = [_object(line) for line in text.splitlines() if line.strip()]
        if None in lines:
            logger.warning("%s: %d damaged lines are skipped", self.root / name, lines.count(None))
        self.used[name.as_posix()] = self.root / name
        return [line for line in lines if line is not None]

    def _text(self, name: Path) -> str | None:
        path = self.root / name
        try:
            if not path.is_file():
                return None
            if not _matches_digest(path):
                logger.warning("%s: differs from its %s; counted as not finished", path, DIGEST)
                return None
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s: cannot be read (%s); counted as not finished", path, _first_line(error))
            return None


def _matches_digest(path: Path) -> bool:
    digest = path.parent / DIGEST
    if path.name == DIGEST or not digest.exists():
        return True
    entry = json.loads(digest.read_text(encoding="utf-8"))["files"].get(path.name)
    return entry is not None and entry["sha256"] == hash_file(path)


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
