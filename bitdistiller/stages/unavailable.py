"""A finished output that says that there is no result, and why: later stages pass the reason on to the table's cell."""

from __future__ import annotations

from pathlib import Path

from bitdistiller.stages.files import read_json, write_json

UNAVAILABLE = "unavailable.json"


def mark_unavailable(directory: Path, reason: str) -> None:
    """Say in `directory`, which holds no model then, why it holds none."""
    write_json(Path(directory) / UNAVAILABLE, {"reason": reason})


def why_unavailable(directory: Path) -> str | None:
    """The reason in a directory that holds one instead of a model; None for every other directory."""
    path = Path(directory) / UNAVAILABLE
    return read_json(path)["reason"] if path.is_file() else None
