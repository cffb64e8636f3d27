"""Content digests: what a stage's output holds, and what a later stage's fingerprint sees of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bitdistiller.errors import InputError
from bitdistiller.stages import damage
from bitdistiller.stages.damage import DAMAGED, DIGEST
from bitdistiller.stages.files import read_json

PROVENANCE = "provenance.json"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces), hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def describe_files(root: Path) -> dict[str, dict[str, Any]]:
    """`{relative path: {"sha256", "bytes"}}` of every visible file below `root` but a stage's own small files."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if path.is_file() and not hidden and name not in (DIGEST, PROVENANCE, DAMAGED):
            found[name] = {"sha256": hash_file(path), "bytes": path.stat().st_size}
    return found


def input_digest(path: Path) -> str:
    """
    The content digest of a stage input: from the `digest.json` of the stage that wrote it where there is one
    (in the directory itself or in the one above), else from the bytes.

    Raises InputError when the path does not exist.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    if not path.is_dir():
        return _from_digest(path.parent, path.name) or hash_file(path)
    for root, prefix in ((path, ""), (path.parent, f"{path.name}/")):
        digest = _from_digest(root, prefix)
        if digest:
            return digest
    return hash_json(describe_files(path))


def _from_digest(root: Path, prefix: str) -> str | None:
    if not (root / DIGEST).exists():
        return None
    files = read_json(root / DIGEST)["files"]
    chosen = {name.removeprefix(prefix): entry["sha256"] for name, entry in files.items() if name.startswith(prefix)}
    return hash_json(chosen) if chosen else None


def verify(root: Path, deep: bool = True) -> None:
    """
    Check a stage output against its `digest.json`: presence and size of every file, with `deep` also the content.

    Raises InputError that names the first damaged file and says how to have it made again; the output is marked, so
    that the next run of the workflow does.
    """
    if not (root / DIGEST).exists():
        raise InputError(f"{root}: {DIGEST} is missing, so this output is not finished; run its stage again")
    for name, entry in read_json(root / DIGEST)["files"].items():
        path = root / name
        whole = path.exists() and path.stat().st_size == entry["bytes"]
        if not whole or (deep and hash_file(path) != entry["sha256"]):
            damage.mark(root, name)
            raise InputError(
                f"{path}: damaged or missing (differs from {DIGEST}); the same snakemake command makes it again; "
                f"without snakemake, delete {root} and run again"
            )
