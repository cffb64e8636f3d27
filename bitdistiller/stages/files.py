"""Durable files: written under a temporary name, synced, renamed."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def temporary_name(path: Path) -> Path:
    """A sibling of `path` that no other process uses."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def sync(path: Path) -> None:
    """Flush one file or directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Flush a file, or every file and folder below a directory."""
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                sync(Path(folder, name))
            sync(Path(folder))
    else:
        sync(path)


def replace(source: Path, target: Path) -> None:
    """Make `source` (a file or directory) become `target`, whole or not at all, and durable."""
    sync_tree(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        old = temporary_name(target)
        target.rename(old)
        source.rename(target)
        shutil.rmtree(old)
    else:
        os.replace(source, target)
    sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically; equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def json_line(value: Any) -> str:
    """One JSON line with sorted keys and its newline."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n"


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON line and sync it; a line cut by a kill is ignored by `read_json_lines(..., torn=True)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as handle:
        if handle.tell() and not _ends_with_newline(path):
            handle.write(b"\n")
        handle.write(json_line(value).encode())
        handle.flush()
        os.fsync(handle.fileno())


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"


def read_json_lines(path: Path, torn: bool = False) -> Iterator[Any]:
    """The values of a JSON lines file; with `torn`, lines that a kill cut short are skipped."""
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                if not torn:
                    raise
