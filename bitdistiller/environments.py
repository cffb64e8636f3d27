"""Environments beside `.venv`, for work whose libraries cannot share ours; each is made by a target of the Makefile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Environment:
    """One environment: its directory in the repository, the variable that names another interpreter, how to make it."""

    directory: Path
    variable: str
    target: str

    def python(self, root: Path = REPOSITORY) -> str:
        """The interpreter that the variable names, else that of the finished environment in `root`, else `python`."""
        here = root / self.directory
        finished = str(here / "bin" / "python") if (here / ".ready").exists() else "python"
        return os.environ.get(self.variable) or finished

    def is_missing(self, root: Path = REPOSITORY) -> bool:
        """Whether there is neither the environment nor another interpreter."""
        return self.python(root) == "python"


BASELINES = Environment(Path(".venv-baselines"), "BASELINES_PYTHON", "baselines")
SERVE = Environment(Path(".venv-serve"), "SERVE_PYTHON", "env-serve")
