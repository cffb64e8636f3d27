"""Where every number comes from: its files, how it was measured, and the stages that made the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bitdistiller.plan import Plan
from bitdistiller.reporting.collect import Collected
from bitdistiller.reporting.notes import items_of
from bitdistiller.stages import DIGEST, PROVENANCE
from bitdistiller.stages.digest import hash_file
from bitdistiller.stages.files import read_json

Origin = dict[str, Any]
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
SHORT = 16
"""Characters of a hash that are shown."""


def origins(collected: Collected, plan: Plan) -> dict[str, Origin]:
    """By `run/evaluation`: every metric of it, unrounded, its files and protocol, and the stages before it."""
    stages: dict[Path, Origin] = {}
    found: dict[str, Origin] = {}
    for (run, evaluation), rows in collected.frame.groupby(["run", "evaluation"], sort=False):
        first = rows.iloc[0]
        origin: Origin = {
            "title": f"{first['model_title']}, {first['method']} {first['format']}: {first['label']}",
            "metrics": [_metric(row) for row in rows.itertuples()],
            "published": _published(rows),
        }
        if evaluation in plan.experiment.averages:
            mean = {"mean of": ", ".join(plan.experiment.averages[evaluation].of)}
            found[f"{run}/{evaluation}"] = origin | {"files": {}, "protocol": mean, "stages": []}
            continue
        directory = plan.evaluation(run, evaluation)
        files = {"metrics": "metrics.json", "predictions": "predictions.jsonl"}
        found[f"{run}/{evaluation}"] = origin | {
            "files": {name: str(directory / file) for name, file in files.items()},
            "protocol": collected.protocols.get((run, evaluation), {}),
            "stages": [stages.setdefault(path, _stage(path)) for path in (*_before(plan, run), directory)],
        }
    return found


def _metric(row: Any) -> Origin:
    values = {"value": row.value, "standard error": row.standard_error}
    numbers = {name: None if pd.isna(value) else float(value) for name, value in values.items()}
    items = "" if pd.isna(row.n) else f"{row.n}{items_of(row.n, row.total)} {row.unit}"
    return {"metric": row.metric, **numbers, "items": items, "quantity": row.quantity, "reason": row.reason}


def _published(rows: Any) -> str:
    texts = rows[rows["published_as_printed"] != ""]
    return "" if texts.empty else f"{texts.iloc[0]['published_as_printed']} ({texts.iloc[0]['source']})"


def _before(plan: Plan, run: str) -> Iterator[Path]:
    """Output directories of the stages that made the model of a run, in their order."""
    method, chosen = plan.method(run), plan.run(run)
    yield plan.base(chosen.model)
    if method.clip:
        yield plan.clip(run)
    if method.train:
        yield from (plan.mix(str(chosen.mix)), plan.tokens(run), *plan.warm_start(run), plan.train(run))
    if method.baseline:
        yield plan.baseline(run)
    if method.quantised:
        yield plan.export(run)


def _stage(directory: Path) -> Origin:
    try:
        provenance = read_json(directory / PROVENANCE)
        attempts = provenance["attempts"]
        seconds = sum(attempt["ended"] - attempt["time"] for attempt in attempts if "ended" in attempt)
        return {
            "stage": provenance["stage"],
            "directory": str(directory),
            "digest": hash_file(directory / DIGEST)[:SHORT],
            "fingerprint": str(provenance["fingerprint"])[:SHORT],
            "recipe": provenance["recipe"],
            "device": provenance["device"],
            "seconds": round(seconds, 1),
            "attempts": len(attempts),
            "versions": provenance["versions"],
        }
    except UNREADABLE:
        return {"stage": directory.name, "directory": str(directory), "missing": True}
