"""What a run has cost so far, over all attempts, added up from the lines of its history."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitdistiller.stages.files import read_json_lines

START = "start"
STEP = "step"


@dataclass
class Totals:
    """Sums over every step taken, those repeated after a kill included, and the largest memory seen."""

    attempts: int = 0
    steps: int = 0
    tokens: int = 0
    """Real tokens, over all processes."""
    positions: int = 0
    """Tokens and padding."""
    seconds: float = 0.0
    """Wall time of the steps alone, without loading, evaluation and saving."""
    device_seconds: float = 0.0
    """Wall time of the attempts times their processes, up to the last step of each."""
    sections: Counter[str] = field(default_factory=Counter)
    """Seconds per section of the clock."""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    evaluations: dict[int, float] = field(default_factory=dict)
    """Evaluation loss by step."""
    _this_attempt: float = 0.0

    def add(self, line: dict[str, Any]) -> None:
        """Count one line of `history.jsonl`."""
        if line["event"] == START:
            self.attempts, self._this_attempt = self.attempts + 1, 0.0
            return
        step, seconds = line["step"], line.get("seconds") or 0.0
        self.device_seconds += line["device_seconds"] - self._this_attempt
        self._this_attempt = line["device_seconds"]
        self.steps += "loss" in line
        self.tokens, self.positions = self.tokens + line.get("tokens", 0), self.positions + line.get("positions", 0)
        self.seconds += seconds
        self.sections.update({name: share * seconds for name, share in line.get("time_shares", {}).items()})
        for name, value in line.get("peak_memory", {}).items():
            self.peak_bytes[name] = max(value, self.peak_bytes.get(name, 0))
        if "loss" in line:
            (self.skipped.add if line.get("skipped") else self.skipped.discard)(step)
        if line.get("evaluation_loss") is not None:
            self.evaluations[step] = line["evaluation_loss"]

    @property
    def tokens_per_second(self) -> float:
        """Real tokens per second of the steps."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def padding(self) -> float:
        """Share of the positions that hold no token."""
        return 1 - self.tokens / self.positions if self.positions else 0.0

    @property
    def time_shares(self) -> dict[str, float]:
        """Sections' shares of the steps' time."""
        whole = sum(self.sections.values())
        return {name: seconds / whole for name, seconds in self.sections.items()} if whole else {}

    def describe(self) -> dict[str, Any]:
        """The totals as plain numbers, for `provenance.json`."""
        return {
            "attempts": self.attempts,
            "steps_taken": self.steps,
            "skipped_steps": len(self.skipped),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "padding": round(self.padding, 4),
            "time_shares": {name: round(share, 4) for name, share in self.time_shares.items()},
            "peak_memory": dict(self.peak_bytes),
            "device_hours": round(self.device_seconds / 3600, 4),
        }


def read_totals(history: Path) -> Totals:
    """The totals of a history that earlier attempts wrote; lines that a kill cut short are left out."""
    totals = Totals()
    for line in read_json_lines(history, torn=True) if history.exists() else ():
        totals.add(line)
    return totals


def read_curve(history: Path) -> list[dict[str, Any]]:
    """One record per step, in order: what its last attempt wrote, a later evaluation of the step merged in."""
    records: dict[int, dict[str, Any]] = {}
    for line in read_json_lines(history, torn=True) if history.exists() else ():
        if line["event"] == STEP:
            records[line["step"]] = records.get(line["step"], {}) | line
    return [records[step] for step in sorted(records)]
