"""A copy of the repository's files, as a user's clone has them, with an experiment of seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("bitdistiller", "rules", "workflow", "profiles", "envs")
EXPERIMENT: dict[str, Any] = {
    "experiment": "seconds",
    "models": {"m": {"demo": {"steps": 4, "hidden_size": 128, "intermediate_size": 128, "layers": 1}}},
    "evaluations": {
        "one": {"kind": "perplexity", "dataset": "demo-text", "max_chunks": 2},
        "two": {"kind": "perplexity", "dataset": "demo-text", "max_chunks": 3},
    },
    "runs": {"full": {"model": "m", "method": "16-bit"}},
}


def copy_of_the_repository(directory: Path, **sections: Any) -> Path:
    """Copy the workflow into `directory` and write config.yaml there, with sections replaced; returns it."""
    for part in PARTS:
        shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "config.yaml").write_text(yaml.safe_dump(EXPERIMENT | sections))
    return directory
