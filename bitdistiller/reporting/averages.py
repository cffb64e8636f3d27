"""Averages over evaluations, recomputed from their unrounded values."""

from __future__ import annotations

import math
from typing import Any

from bitdistiller.config import Average

Row = dict[str, Any]


def average(chosen: Average, name: str, label: str, parts: list[Row]) -> Row | None:
    """
    The row of an average from the main rows of its parts, which are in the tidy table's columns; None where one is
    missing or was not measured.

    The standard error takes the parts as independent: the root of the sum of their squared errors, over their number.
    """
    by_name = {row["evaluation"]: row for row in parts if row["main"]}
    rows = [by_name.get(part) for part in chosen.of]
    if any(row is None or row["value"] is None for row in rows):
        return None
    errors = [row["standard_error"] for row in rows]
    error = None if None in errors else math.sqrt(math.fsum(e * e for e in errors)) / len(errors)
    return rows[0] | {
        "evaluation": name,
        "label": label,
        "kind": "average",
        "metric": "mean",
        "value": math.fsum(row["value"] for row in rows) / len(rows),
        "standard_error": error,
        "n": len(rows),
        "total": len(rows),
        "unit": "evaluations",
        "quantity": "fraction",
        "reason": "",
    }
