"""What an experiment consists of: the path of every output, the recipe of every job, the checks before the first."""

from __future__ import annotations

from pathlib import Path

from bitdistiller.plan.budget import Budget, budget
from bitdistiller.plan.checks import Plan
from bitdistiller.plan.names import RESULTS

__all__ = ["RESULTS", "Budget", "Plan", "budget", "image", "main_process_directory"]


def image(root: Path, kind: str) -> str:
    """The container image of a kind of work in the repository `root`, for Snakemake's `--sdm apptainer`."""
    return str(root / "envs" / "images" / f"{kind}.sif")


def main_process_directory(results: Path) -> Path:
    """Where the one main process that may run jobs for `results` has its lock."""
    return results / ".main-process"
