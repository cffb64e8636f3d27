"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of what was seen about `name`, and one of what to do where it is not fine."""

    name: str
    level: Level
    seen: str
    advice: str = ""


def ok(name: str, seen: str) -> Finding:
    """Nothing to do."""
    return Finding(name, "ok", seen)


def warning(name: str, seen: str, advice: str) -> Finding:
    """The workflow runs, but worse than it could, or not in every case."""
    return Finding(name, "warning", seen, advice)


def error(name: str, seen: str, advice: str) -> Finding:
    """The workflow would hang, fail or do work twice."""
    return Finding(name, "error", seen, advice)


def skipped(name: str, seen: str, advice: str = "") -> Finding:
    """Could not be looked at, and why."""
    return Finding(name, "skipped", seen, advice)
