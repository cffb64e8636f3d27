"""Rows of a dataset: from a local file of any common kind, or from the hub."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bitdistiller.errors import InputError

Row = dict[str, Any]
SUFFIXES = ".json, .jsonl, .csv, .parquet, .txt, .raw, each but parquet also with .gz"


def load_rows(path: Path) -> list[Row]:
    """
    The rows of a local file, or of all files of a directory in name order.

    JSON holds a list of objects, JSON lines one object a line, CSV a header, text one document a line
    (`{"text": line}`, line end removed, empty lines kept). Raises InputError for a missing, unreadable or empty file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; give a local file of kind {SUFFIXES}")
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    rows = [row for file in files for row in _rows(file)]
    strange = next((row for row in rows if not isinstance(row, dict)), None)
    if strange is not None:
        raise InputError(f"{path}: must hold objects, one per row, not {type(strange).__name__}")
    if not rows:
        raise InputError(f"{path}: holds no rows")
    return rows


def _rows(path: Path) -> Iterator[Row]:
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind not in READERS:
        raise InputError(f"{path}: unknown kind of file; accepted: {SUFFIXES}")
    try:
        yield from READERS[kind](path)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as {kind} ({reason(error)})") from error


def _open(path: Path) -> io.TextIOBase:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8", newline="")


def _json_lines(path: Path) -> Iterator[Row]:
    with _open(path) as handle:
        yield from (json.loads(line) for line in handle if line.strip())


def _json(path: Path) -> Iterator[Row]:
    with _open(path) as handle:
        value = json.load(handle)
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise InputError(f"{path}: must hold a list of objects")
    yield from rows


def _csv(path: Path) -> Iterator[Row]:
    with _open(path) as handle:
        yield from csv.DictReader(handle)


def _text(path: Path) -> Iterator[Row]:
    with _open(path) as handle:
        yield from ({"text": line.rstrip("\r\n")} for line in handle)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    yield from pyarrow.parquet.read_table(path).to_pylist()


READERS = {
    "json": _json,
    "jsonl": _json_lines,
    "ndjson": _json_lines,
    "csv": _csv,
    "txt": _text,
    "raw": _text,
    "tokens": _text,
    "parquet": _parquet,
}


def hub_rows(hub: str, name: str | None, split: str) -> Iterable[Row]:
    """The rows of a hub dataset; raises InputError, naming the local way out, when the hub cannot be reached."""
    import datasets

    try:
        return datasets.load_dataset(hub, name, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        way_out = "download it and give its path instead"
        raise InputError(f"dataset {hub} cannot be loaded ({reason(error)}); {way_out}") from error


def reason(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def rows_of(dataset: str, path: Path | None, hub: str | None, name: str | None, split: str) -> Iterable[Row]:
    """The rows of a named dataset: from `path` where one is given, else from the hub."""
    if path is not None:
        return load_rows(path)
    if hub is None:
        raise InputError(f"dataset {dataset} has no place on the hub; give a path")
    return hub_rows(hub, name, split)


def column(row: Row, *names: str, where: str) -> str:
    """The first of the columns `names` that the row has, as text; InputError names what was looked for."""
    for name in names:
        if row.get(name) is not None:
            return str(row[name])
    raise InputError(f"{where}: a row lacks the column {' or '.join(names)}; it has {', '.join(map(str, row))}")
