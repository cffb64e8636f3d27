"""The tidy table: one row per (model, run, evaluation, metric)."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bitdistiller.config import Experiment
from bitdistiller.reporting.averages import average
from bitdistiller.reporting.differences import difference, published_items
from bitdistiller.reporting.published import Published, PublishedNumber
from bitdistiller.reporting.runs import LOWER_IS_BETTER, RunIdentity, column, label, main_metric
from bitdistiller.reporting.sources import ExportFile, Metric, MetricsFile

COLUMNS = {
    "model": "str",
    "model_title": "str",
    "run": "str",
    "method": "str",
    "format": "str",
    "bits": "Int64",
    "group_size": "Int64",
    "bits_per_weight": "Float64",
    "file_bytes": "Int64",
    "training_tokens": "Int64",
    "evaluation": "str",
    "label": "str",
    "kind": "str",
    "metric": "str",
    "main": "bool",
    "value": "Float64",
    "standard_error": "Float64",
    "n": "Int64",
    "unit": "str",
    "higher_is_better": "bool",
    "reason": "str",
    "published": "Float64",
    "published_as_printed": "str",
    "source": "str",
    "total": "Int64",
    "quantity": "str",
    "difference": "Float64",
    "difference_standard_error": "Float64",
}
"""
Columns and types. Fractions (`value`, `standard_error`, `published`) are in 0..1, `published_as_printed` is as in the
paper, `source` says where. `main` marks the metric that stands in the paper-shaped table; `n` counts `unit`, of which
there are `total`. `quantity` is perplexity, fraction or nats. `difference` is ours less the paper's.
"""


def frame(
    experiment: Experiment,
    identities: list[RunIdentity],
    metrics: dict[tuple[str, str], MetricsFile],
    exports: dict[str, ExportFile],
    published: Published | None,
    training_tokens: dict[str, int],
) -> pd.DataFrame:
    """All that was measured, in the order of the table."""
    rows: list[dict[str, Any]] = []
    for identity in identities:
        before = len(rows)
        for name in experiment.evaluations_of(identity.run):
            if (identity.run, name) in metrics:
                fixed = _fixed(experiment, identity, name, exports.get(identity.run))
                fixed["training_tokens"] = training_tokens.get(identity.run)
                number = published_number(experiment, identity, name, published)
                wanted = main_metric(experiment.evaluations[name])
                items = published_items(published, experiment.evaluations[name].published)
                rows += [fixed | row for row in _measured(metrics[identity.run, name], wanted, number, items)]
        for name, chosen in experiment.averages.items():
            row = average(chosen, name, label(experiment, name), rows[before:])
            if row is not None:
                number = published_number(experiment, identity, name, published)
                rows.append(row | _beside(row, number, None) | _as_published(number, row["kind"]))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def published_number(
    experiment: Experiment, identity: RunIdentity, evaluation: str, published: Published | None
) -> PublishedNumber | None:
    """The paper's number for the cell of a run and an evaluation, where there is one."""
    name = column(experiment, evaluation).published
    if published is None or name is None:
        return None
    return published.find(
        model=identity.model_title,
        metric=name,
        method=identity.method_title,
        bits=identity.bits,
        number_format=identity.quantised_format,
        group_size=identity.group_size,
    )


def _fixed(experiment: Experiment, identity: RunIdentity, name: str, export: ExportFile | None) -> dict[str, Any]:
    of_run = {key: getattr(identity, key) for key in ("model", "model_title", "run", "format", "bits", "group_size")}
    return of_run | {
        "method": identity.method_title,
        "bits_per_weight": export.bits_per_weight if export else None,
        "file_bytes": export.file_bytes if export else None,
        "evaluation": name,
        "label": label(experiment, name),
    }


def _measured(
    content: MetricsFile, wanted: str, number: PublishedNumber | None, items: int | None
) -> list[dict[str, Any]]:
    main = wanted if wanted in content.metrics else next(iter(content.metrics))
    rows = []
    for metric, entry in content.metrics.items():
        row, theirs = _entry(entry, content.kind), number if metric == main else None
        row |= {"kind": content.kind, "metric": metric, "main": metric == main}
        rows.append(row | _beside(row, theirs, items) | _as_published(theirs, content.kind))
    return rows


def _beside(row: dict[str, Any], theirs: PublishedNumber | None, items: int | None) -> dict[str, Any]:
    apart, error = difference(row["value"], row["standard_error"], theirs, items, row["quantity"])
    return {"difference": apart, "difference_standard_error": error}


def _entry(entry: Metric, kind: str) -> dict[str, Any]:
    better = entry.higher_is_better
    return {
        "value": entry.value,
        "standard_error": entry.standard_error,
        "n": entry.n,
        "unit": entry.unit or "",
        "higher_is_better": kind not in LOWER_IS_BETTER if better is None else better,
        "reason": entry.reason or "",
        "total": entry.n if entry.total is None else entry.total,
        "quantity": entry.quantity or ("perplexity" if kind == "perplexity" else "fraction"),
    }


def _as_published(number: PublishedNumber | None, kind: str) -> dict[str, Any]:
    if number is None:
        return {"published": None, "published_as_printed": "", "source": ""}
    value = number.value if kind == "perplexity" else round(number.value / 100, 6)
    known = value if math.isfinite(value) else None
    return {"published": known, "published_as_printed": number.text, "source": number.source}
