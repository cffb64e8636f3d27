"""What commands of several rooms take: their options, and what follows from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bitdistiller import config
from bitdistiller.recipes import load_experiment, load_recipe

RECIPE = "Options of the stage: YAML or JSON text, or a file with it. `bitdistiller options STAGE` lists them."
Output = Annotated[Path, typer.Option(help="Directory of the results, with digest.json and provenance.json.")]
Work = Annotated[
    Path | None, typer.Option(help="Directory of the resumable state; by default work/... for results/...")
]
Recipe = Annotated[str | None, typer.Option(help=RECIPE)]
Changes = Annotated[list[str], typer.Option("--set", help="One option of the stage, key.key=value; repeatable.")]
Budget = Annotated[float | None, typer.Option(help="Minutes after which the stage saves, stops and exits 75.")]
Walltime = Annotated[
    float | None, typer.Option(help="The same, but only inside a scheduler's job (used by the rules).")
]
ModelDirectory = Annotated[Path, typer.Option(help="Full-precision model directory in Hugging Face layout.")]
Config = Annotated[Path, typer.Option(help="Experiment file.")]
FormatOption = Annotated[
    str | None, typer.Option(help=f"Number format: {', '.join(config.OWN_FORMATS)}, or one of another package.")
]
GroupSize = Annotated[int | None, typer.Option(help="Input columns that share a scale.")]


def budget(time_budget: float | None, walltime: float | None) -> float | None:
    """Minutes that a stage may take: those of --time-budget, else of a scheduler's job."""
    from bitdistiller.stages.deadline import scheduler_minutes

    return time_budget if time_budget is not None else scheduler_minutes(walltime)


def changed(changes: list[str], **values: object) -> list[str]:
    """The changes of `--set`, after those of options of their own; `a__b` stands for the key a.b."""
    given = [f"{key.replace('__', '.')}={json.dumps(str(value))}" for key, value in values.items() if value is not None]
    return given + changes


def experiment_of(path: Path, text: str | None) -> config.Experiment:
    """The experiment of `--recipe`, else of `--config`."""
    return load_recipe(config.Experiment, text, []) if text else load_experiment(path)


def given_path(path: Path | None) -> Path | None:
    """A path that an option was given; None where it was left out, or `none` was said in its place."""
    return None if path == Path("none") else path
