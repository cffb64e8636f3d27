"""An experiment file: everything by name, and what its jobs may use."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from bitdistiller.config.ablation import Ablation, expand
from bitdistiller.config.base import Name, Section
from bitdistiller.config.calibration import Calibration
from bitdistiller.config.data import Mix
from bitdistiller.config.evaluation import Average, Evaluation
from bitdistiller.config.models import Model
from bitdistiller.config.runs import METHODS, Run
from bitdistiller.config.training import Training, check_trained_scales

SHARES = ("math", "code", "multiple_choice")
"""Kinds of evaluation whose table column is a share of items."""
RESERVED_RUN_NAMES = ("base", "clip", "grams", "mixes")


class StageResources(Section):
    """What one job of a stage may use."""

    gpu: NonNegativeInt = 0
    """GPUs on one node (`nodes` of a run: on each)."""
    threads: PositiveInt = 1
    """CPU cores."""
    mem_mb: PositiveInt = 4000
    """Host memory in MB. Of mix, tokenize, export, convert and baseline failed attempts grow it, up to three times."""
    runtime: PositiveInt = 60
    """
    Walltime in minutes. Most stages stop by themselves before it and the next attempt goes on; for fetch, mix,
    tokenize, export, convert, baseline and evaluate it grows with failed attempts, up to three times.
    """


class Resources(Section):
    """Resources per stage; a GPU count of 0 runs on the CPU."""

    fetch: StageResources = StageResources(runtime=240)
    pretrain_demo: StageResources = StageResources(threads=2)
    clip: StageResources = StageResources()
    baseline: StageResources = StageResources(threads=2, runtime=240)
    """Baselines by a library, which cannot stop before the walltime and starts over."""
    generate: StageResources = StageResources()
    mix: StageResources = StageResources()
    """Also of the jobs that put the shards of an evaluation together."""
    tokenize: StageResources = StageResources()
    cache: StageResources = StageResources()
    """Shards of `cache-teacher`."""
    warm_start: StageResources = StageResources(threads=2)
    train: StageResources = StageResources(threads=2)
    export: StageResources = StageResources()
    convert: StageResources = StageResources()
    evaluate: StageResources = StageResources()


class Experiment(Section):
    """An experiment file."""

    experiment: Name = "demo"
    """Name of the experiment; its tables are in results/tables/<experiment>/."""
    title: str | None = None
    """Heading of the table."""
    paper: Name | None = None
    """Published numbers to print beside ours: a file name in reporting/papers without .csv."""
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    calibrations: dict[Name, Calibration] = {}
    mixes: dict[Name, Mix] = {}
    trainings: dict[Name, Training] = {}
    evaluations: dict[Name, Evaluation] = {}
    averages: dict[Name, Average] = {}
    """Further columns of the table, after those of the evaluations."""
    ablation: Ablation | None = None
    """Runs that differ from another one in a single choice each."""
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _ablation_runs(cls, content: Any) -> Any:
        return expand(content)

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for name, run in self.runs.items():
            if name in RESERVED_RUN_NAMES:
                raise ValueError(f"runs.{name}: this name is used by the workflow; choose another")
            places = [("model", run.model, self.models), ("teacher", run.teacher, self.models)]
            places += [("calibration", run.calibration, self.calibrations)]
            places += [("mix", run.mix, self.mixes), ("training", run.training, self.trainings)]
            places += [("evaluations", evaluation, self.evaluations) for evaluation in run.evaluations]
            for key, value, section in places:
                if value is not None and value not in section:
                    known = ", ".join(section) or "none"
                    raise ValueError(f"runs.{name}.{key}: {value!r} is not defined; defined: {known}")
            if run.training is not None:
                try:
                    check_trained_scales(self.trainings[run.training], run.number_format)
                except ValueError as error:
                    raise ValueError(f"runs.{name}.training: {error}") from None
                if run.nodes > 1 and self.trainings[run.training].engine == "single":
                    engines = "auto, ddp, fsdp, zero2, zero3"
                    raise ValueError(
                        f"runs.{name}.nodes: {run.nodes}, but the engine of training {run.training!r} is single, which "
                        f"is one process; accepted: {engines}"
                    )
        for name, average in self.averages.items():
            if name in self.evaluations:
                raise ValueError(f"averages.{name}: an evaluation has this name; choose another")
            shares = [key for key, value in self.evaluations.items() if value.kind in SHARES]
            for part in average.of:
                if part not in shares:
                    raise ValueError(
                        f"averages.{name}.of: {part!r} is no evaluation with a share; there are {', '.join(shares)}"
                    )
        for name, mix in self.mixes.items():
            if mix.teacher not in self.models:
                raise ValueError(
                    f"mixes.{name}.teacher: {mix.teacher!r} is not defined; defined: {', '.join(self.models)}"
                )
        return self

    def columns_of(self, run: str) -> list[str]:
        """Names of a run's columns in the table: its evaluations, and the averages that it has all parts of."""
        found = self.evaluations_of(run)
        return found + [name for name, average in self.averages.items() if set(average.of) <= set(found)]

    def evaluations_of(self, run: str) -> list[str]:
        """
        Names of the evaluations of a run, in the order of the experiment file.

        A full-precision model agrees with itself, and is not asked to.
        """
        chosen, quantised = self.runs[run].evaluations, METHODS[self.runs[run].method].quantised
        asked = (name for name in self.evaluations if not chosen or name in chosen)
        return [name for name in asked if quantised or self.evaluations[name].kind != "agreement"]
