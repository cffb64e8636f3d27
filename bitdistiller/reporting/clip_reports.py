"""What the clip searches of an experiment did: error before and after, and what was kept, layer by layer."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pydantic import BaseModel, Field

from bitdistiller.plan import Plan
from bitdistiller.reporting.layer_names import split_name
from bitdistiller.reporting.sources import Sources

COLUMNS = {
    "model": "str",
    "model_title": "str",
    "clip": "str",
    "calibration": "str",
    "format": "str",
    "group_size": "Int64",
    "layer": "str",
    "block": "Int64",
    "kind": "str",
    "tokens": "Int64",
    "groups": "Int64",
    "error_before": "Float64",
    "error_after": "Float64",
    "maximum_ratio": "Float64",
    "minimum_ratio": "Float64",
}
"""
Columns and types. Errors are the mean squared change of the layer's output over calibration tokens and output
features; ratios the mean shares of the groups' maxima and minima that were kept.
"""


class ClipLayer(BaseModel):
    """One layer of `clip.json`; histogram entry i counts the groups that kept `1 - i/20` of an end."""

    name: str
    tokens: int
    groups: int = Field(gt=0)
    error_before: float = Field(ge=0, allow_inf_nan=False)
    error_after: float = Field(ge=0, allow_inf_nan=False)
    maximum_ratio: float
    minimum_ratio: float
    maximum_histogram: list[int]
    minimum_histogram: list[int]


class ClipFile(BaseModel):
    """The content of `clip.json`."""

    format: str
    group_size: int
    layers: list[ClipLayer] = Field(min_length=1)


def read_clips(plan: Plan, sources: Sources) -> tuple[pd.DataFrame, dict[str, bool]]:
    """One row per layer of every finished search, and for the directory of every search whether it is finished."""
    rows: list[dict[str, Any]] = []
    finished: dict[str, bool] = {}
    for (model, clip), run in plan.clips.items():
        directory = plan.clip(run)
        content = sources.read(directory / "clip.json", ClipFile)
        finished[directory.as_posix()] = content is not None
        if content is not None:
            title = plan.experiment.models[model].title or model
            fixed = {"model": model, "model_title": title, "clip": clip, "calibration": plan.run(run).calibration}
            rows += _rows(content, fixed)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS), finished


def _rows(content: ClipFile, fixed: dict[str, Any]) -> list[dict[str, Any]]:
    fixed = fixed | {"format": content.format.upper(), "group_size": content.group_size}
    rows = []
    for layer in content.layers:
        block, kind = split_name(layer.name)
        values = {name: getattr(layer, name) for name in COLUMNS if name in ClipLayer.model_fields}
        rows.append({**fixed, "layer": layer.name, "block": block, "kind": kind, **values})
    return rows
