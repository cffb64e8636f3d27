"""The table of an ablation: every run beside the one it differs from in a single choice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bitdistiller.config import Experiment
from bitdistiller.errors import InputError
from bitdistiller.plan import Plan
from bitdistiller.reporting import latex, quantities
from bitdistiller.reporting.collect import Collected
from bitdistiller.reporting.comparison import predictions
from bitdistiller.reporting.markdown import escape, pipe_table
from bitdistiller.reporting.runs import label

COLUMNS = {
    "factor": "str",
    "choice": "str",
    "run": "str",
    "evaluation": "str",
    "label": "str",
    "metric": "str",
    "quantity": "str",
    "value": "Float64",
    "standard_error": "Float64",
    "difference": "Float64",
    "difference_standard_error": "Float64",
    "paired": "bool",
}
"""
Columns and types: a row per run and evaluation that is finished, the base first, with an empty factor. `difference` is
from the base; its error is of paired items where `paired`, else of two independent samples.
"""
NOTE = (
    "Every row differs from the first in one choice. Value ± standard error, then the difference from the first row "
    "with its own, which counts the items in pairs where both runs have the same ones."
)


def ablation_frame(experiment: Experiment, collected: Collected, results: Path) -> pd.DataFrame:
    """The numbers of the experiment's ablation, columns as in `COLUMNS`; no rows where it has none."""
    rows: list[dict[str, Any]] = []
    if experiment.ablation is not None:
        rows = list(_rows(experiment, collected, Plan(experiment, results)))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _rows(experiment: Experiment, collected: Collected, plan: Plan) -> Iterator[dict[str, Any]]:
    ablation = experiment.ablation
    assert ablation is not None
    main = collected.frame[collected.frame["main"] & collected.frame["value"].notna()]
    entries = {(row.run, row.evaluation): row for row in main.itertuples()}
    for run, (factor, choice) in ablation.rows.items():
        for name in experiment.evaluations_of(run):
            if (run, name) not in entries:
                continue
            entry, base = entries[run, name], entries.get((ablation.base, name))
            row = {key: getattr(entry, key) for key in ("run", "evaluation", "label", "metric", "quantity")}
            row |= {"factor": factor, "choice": choice, "value": entry.value, "standard_error": entry.standard_error}
            yield row | (_difference(base, entry, plan) if factor and base is not None else {"paired": False})


def _difference(base: Any, entry: Any, plan: Plan) -> dict[str, Any]:
    values = {"difference": entry.value - base.value}
    error = paired_error(*(plan.evaluation(side.run, side.evaluation) for side in (base, entry)))
    if error is not None:
        return values | {"difference_standard_error": error, "paired": True}
    known = not (pd.isna(base.standard_error) or pd.isna(entry.standard_error))
    alone = math.hypot(base.standard_error, entry.standard_error) if known else None
    return values | {"difference_standard_error": alone, "paired": False}


def paired_error(base: Path, other: Path) -> float | None:
    """
    The standard error of the difference between two evaluations of the same items, in the unit of their metric.

    Each item counts with what it adds to the difference: its outcome, for a perplexity times the perplexity (delta
    method). None where items or protocols differ, or there are fewer than two items.
    """
    try:
        sides = [predictions.read(path) for path in (base, other)]
        predictions.require_one_protocol(*sides)
    except InputError:
        return None
    items = list(sides[0].records)
    if len(items) < 2 or set(items) != set(sides[1].records):
        return None
    weights = np.array([sides[0].weight(item) for item in items])
    shares = weights / weights.mean()
    added = [shares * _influence(np.array([side.value(item) for item in items]), weights, side.kind) for side in sides]
    return float(np.std(added[1] - added[0], ddof=1) / math.sqrt(len(items)))


def _influence(outcomes: np.ndarray, weights: np.ndarray, kind: str) -> np.ndarray:
    mean = np.average(outcomes, weights=weights)
    return (outcomes - mean) * (math.exp(mean) if kind == "perplexity" else 1.0)


def table_rows(experiment: Experiment, frame: pd.DataFrame, pretty: str = "plain") -> list[list[str]]:
    """Heading and rows of texts: factor, choice, and two columns for every evaluation; `pretty`: plain or latex."""
    assert experiment.ablation is not None
    names = experiment.evaluations_of(experiment.ablation.base)
    lines = [["Factor", "Choice", *(text for name in names for text in (label(experiment, name), "Δ"))]]
    entries = {(row.run, row.evaluation): row for row in frame.itertuples()}
    before = ""
    for run, (factor, choice) in {
        experiment.ablation.base: ("", experiment.ablation.base),
        **experiment.ablation.runs,
    }.items():
        cells = [text for name in names for text in _cells(entries.get((run, name)), pretty)]
        lines.append([factor.replace("_", " ") if factor != before else "", choice, *cells])
        before = factor
    return lines


def _cells(entry: Any, pretty: str) -> tuple[str, str]:
    if entry is None:
        return "pending", ""
    plus = r" $\pm$ " if pretty == "latex" else " ± "

    def with_error(value: quantities.Quantity, error: Any) -> str:
        known = not pd.isna(error)
        shown = quantities.standard_error(float(error), float(entry.value), entry.quantity) if known else None
        return getattr(value, pretty) + (plus + getattr(shown, pretty) if shown else "")

    value = with_error(quantities.printed(float(entry.value), entry.quantity), entry.standard_error)
    if pd.isna(entry.difference):
        return value, ""
    apart = quantities.signed(float(entry.difference), entry.quantity)
    return value, with_error(apart, entry.difference_standard_error)


def render_markdown(experiment: Experiment, frame: pd.DataFrame) -> str:
    """The table as Markdown, with a final newline; says so where the experiment has no ablation."""
    if experiment.ablation is None:
        return "This experiment has no ablation.\n"
    rows = [[escape(text) for text in row] for row in table_rows(experiment, frame)]
    alignments = [name not in ("Factor", "Choice") for name in rows[0]]
    return "\n\n".join(["### Ablation", pipe_table(rows, alignments), escape(NOTE)]) + "\n"


def render_latex(experiment: Experiment, frame: pd.DataFrame) -> str:
    """The table for the package booktabs, with a final newline."""
    if experiment.ablation is None:
        return "% This experiment has no ablation.\n"
    head, *rows = table_rows(experiment, frame, "latex")
    shape = "ll" + "r" * (len(head) - 2)
    heading = " & ".join(r"$\Delta$" if text == "Δ" else latex.escape(text) for text in head)
    body = [" & ".join([*(latex.escape(text) for text in row[:2]), *row[2:]]) + r" \\" for row in rows]
    lines = [rf"\begin{{tabular}}{{@{{}}{shape}@{{}}}}", r"\toprule", heading + r" \\", r"\midrule", *body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
