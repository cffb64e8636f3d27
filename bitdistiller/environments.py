"""Environments beside `.venv`, for work whose libraries cannot share ours; each is made by a target of the Makefile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Environment:
    """
    One environment: what it is called, its directory in the repository, the target that makes it.

    variable: names another interpreter in its place. package: where this is importable, no other environment is needed.
    """

    title: str
    directory: Path
    target: str
    variable: str
    package: str | None = None

    def python(self, root: Path = REPOSITORY) -> str:
        """The interpreter that the variable names, else that of the finished environment in `root`, else `python`."""
        here = root / self.directory
        finished = str(here / "bin" / "python") if (here / ".ready").exists() else "python"
        return os.environ.get(self.variable) or finished

    @property
    def is_here(self) -> bool:
        """Whether its package can be imported by this process; it is not, because that may take many seconds."""
        found = find_spec(self.package) if self.package is not None else None
        return found is not None and found.origin is not None  # a folder of that name is no package

    def is_missing(self, root: Path = REPOSITORY) -> bool:
        """Whether work that needs it could run nowhere."""
        return self.python(root) == "python" and not self.is_here

    @property
    def remedy(self) -> str:
        """What to do where it is missing."""
        return f"run `make {self.target}` once, or start snakemake with --software-deployment-method conda"


BASELINES = Environment("the baselines' environment", Path(".venv-baselines"), "baselines", "BASELINES_PYTHON")
SERVE = Environment("the serving environment", Path(".venv-serve"), "env-serve", "SERVE_PYTHON", "vllm")
