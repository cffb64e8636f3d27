"""The fingerprint: which recipe and which inputs a work directory belongs to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bitdistiller.stages.digest import hash_json, input_digest
from bitdistiller.stages.files import read_json, write_json


def plain(recipe: BaseModel | dict[str, Any]) -> dict[str, Any]:
    """A recipe as JSON without the keys that equal their defaults, so that a new option changes no old fingerprint."""
    if isinstance(recipe, BaseModel):
        return recipe.model_dump(mode="json", exclude_defaults=True)
    return recipe


def describe(stage: str, version: int, recipe: BaseModel | dict[str, Any], inputs: dict[str, Path]) -> dict[str, Any]:
    """The full text of a fingerprint: stage, version, recipe, content digest of every input, and the hash of these."""
    text: dict[str, Any] = {
        "stage": stage,
        "version": version,
        "recipe": plain(recipe),
        "inputs": {name: input_digest(Path(path)) for name, path in sorted(inputs.items())},
    }
    return {**text, "fingerprint": hash_json(text)}


def claim_state(work: Path, fingerprint: dict[str, Any]) -> Path:
    """
    The state directory below `work` that belongs to `fingerprint`.

    State of another fingerprint is moved aside to `stale-<its hash>` and never resumed from.
    """
    state, record = work / "state", work / "fingerprint.json"
    if record.exists() and state.exists():
        old = read_json(record)["fingerprint"]
        if old != fingerprint["fingerprint"]:
            aside = work / f"stale-{old[:12]}"
            shutil.rmtree(aside, ignore_errors=True)
            state.rename(aside)
            (work / "attempts.jsonl").unlink(missing_ok=True)
            (work / "commits.json").unlink(missing_ok=True)
    write_json(record, fingerprint)
    state.mkdir(parents=True, exist_ok=True)
    return state
