"""Finished outputs that are no longer what their stage wrote: found cheaply before a run, or marked by a reader."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from bitdistiller.stages.files import read_json, write_json

DIGEST = "digest.json"
DAMAGED = "damaged.json"
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


def mark(root: Path, name: str) -> None:
    """Remember in a stage's output that the content of its file `name` is not what digest.json says."""
    with contextlib.suppress(OSError):  # a reader may have no right to write here
        write_json(root / DAMAGED, {"file": name})


def damaged_file(root: Path) -> Path | None:
    """
    The first file of a finished output that is missing, of another size than digest.json says, or marked by a reader.

    None for a whole output and for one that is not finished. Reads two small files and no content.
    """
    try:
        files = _files(root / DIGEST)
    except FileNotFoundError:
        return None
    except UNREADABLE:
        return root / DIGEST
    if (root / DAMAGED).exists():
        return root / _marked(root / DAMAGED)
    return next((root / name for name, size in files.items() if _size(root / name) != size), None)


def _marked(mark: Path) -> str:
    try:
        return str(read_json(mark)["file"])
    except UNREADABLE:
        return DAMAGED


def _files(digest: Path) -> dict[str, int]:
    content: dict[str, Any] = read_json(digest)
    return {name: entry["bytes"] for name, entry in content["files"].items()}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
