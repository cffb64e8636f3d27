"""Training histories: loss and evaluation loss by step."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from pydantic import BaseModel

from bitdistiller.plan import Plan
from bitdistiller.reporting.runs import RunIdentity
from bitdistiller.reporting.sources import Sources

COLUMNS = {
    "model": "str",
    "model_title": "str",
    "run": "str",
    "method": "str",
    "format": "str",
    "gamma": "Float64",
    "step": "Int64",
    "loss": "Float64",
    "evaluation_loss": "Float64",
    "tokens": "Int64",
}
"""Columns and types: one row per event; `tokens` are those of a training step, over all processes."""


class GammaFile(BaseModel):
    """The content of `gamma.json`."""

    gamma: float
    definition: str = ""

    @property
    def used(self) -> float | None:
        """The value, where the loss has a gamma."""
        return None if self.definition.startswith("not used") else self.gamma


def read_history(identities: list[RunIdentity], plan: Plan, sources: Sources) -> pd.DataFrame:
    """One row per event of every trained run, by step; of a step that was repeated the last event counts."""
    rows = [row for identity in identities if identity.trained for row in _events(identity, plan, sources)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    repeated = frame.assign(kind=frame["loss"].isna()).duplicated(["run", "step", "kind"], keep="last")
    return frame[~repeated].reset_index(drop=True)


def training_tokens(history: pd.DataFrame) -> dict[str, int]:
    """Tokens that every run was trained on, steps that were repeated counted once; no entry where none are recorded."""
    counted = history.dropna(subset=["tokens"])
    return {str(run): int(tokens) for run, tokens in counted.groupby("run", sort=False)["tokens"].sum().items()}


def _events(identity: RunIdentity, plan: Plan, sources: Sources) -> list[dict[str, Any]]:
    lines = sources.read_lines(plan.train(identity.run) / "history.jsonl")
    gamma = sources.read(plan.train(identity.run) / "gamma.json", GammaFile) if lines else None
    fixed = {name: getattr(identity, name) for name in ("model", "model_title", "run", "format")}
    fixed |= {"method": identity.method_title, "gamma": gamma.used if gamma else None}
    events = [
        {**fixed, "step": line["step"]} | {name: _number(line, name) for name in ("loss", "evaluation_loss", "tokens")}
        for line in lines
        if isinstance(line.get("step"), int)
    ]
    known = [event for event in events if event["loss"] is not None or event["evaluation_loss"] is not None]
    return sorted(known, key=lambda event: event["step"])


def _number(line: dict[str, Any], key: str) -> float | None:
    value = line.get(key)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None
