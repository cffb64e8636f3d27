"""What an experiment takes at most, before anything runs: jobs, GPU-hours by their walltimes, and disk."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bitdistiller.config import DemoTeacherRecipe, Model, format_bits
from bitdistiller.plan.recipes import Recipes

STAGES = {
    "gram": "clip",
    "cache_teacher": "cache",
    "evaluate_shard": "evaluate",
    "merge_evaluation": "mix",
}
"""The stage whose resources a rule's jobs get, where it is called otherwise."""
MASTER, MOMENTS = 4, {"adamw": 8, "adamw-8bit": 2}
"""Bytes a parameter in a checkpoint."""
OF_A_SCALE = 0.3
"""Bits a weight that scales and zero points take, about."""
SIZE = re.compile(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])")


@dataclass(frozen=True)
class Budget:
    """Jobs by rule; GPU-hours if every job took its whole walltime; bytes, and models whose size is not known."""

    jobs: dict[str, int]
    gpu_hours: float
    disk_bytes: float
    unknown: tuple[str, ...]

    def describe(self) -> str:
        """One line."""
        hours = f"at most {self.gpu_hours:,.0f} GPU-hours by their walltimes" if self.gpu_hours else "no GPU"
        scale, unit = (1e9, "GB") if self.disk_bytes >= 1e9 else (1e6, "MB")
        more = f", without {', '.join(self.unknown)}" if self.unknown else ""
        jobs = sum(self.jobs.values())
        return f"{jobs} jobs, {hours}, about {self.disk_bytes / scale:,.0f} {unit} on disk for weights{more}"


def budget(plan: Recipes) -> Budget:
    """The whole experiment, as if nothing of it were finished; reads sizes of local models alone."""
    jobs = _jobs(plan)
    sizes = {name: parameters(plan.experiment.models[name]) for name in _models(plan)}
    unknown = tuple(name for name, size in sizes.items() if size is None)
    return Budget(
        jobs, _gpu_hours(plan, jobs), _disk(plan, {name: size or 0.0 for name, size in sizes.items()}), unknown
    )


def parameters(model: Model) -> float | None:
    """Parameters of a model, about: of files there, of the demo's sizes, or what its name says; None where unknown."""
    if model.path is not None:
        return sum(path.stat().st_size for path in Path(model.path).glob("*.safetensors")) / _bytes(model) or None
    if model.demo is not None:
        return _of_demo(model.demo)
    found = [match for name in (model.hub, model.title) if name for match in SIZE.findall(name)]
    return 1e9 * float(found[-1]) if found else None


def _jobs(plan: Recipes) -> dict[str, int]:
    experiment, counts = plan.experiment, Counter[str]()
    for name in _models(plan):
        counts["fetch" if experiment.models[name].demo is None else "pretrain_demo"] += 1
    for run in plan.grams.values():
        counts["gram"] += len(plan.gram_shards(run))
    for name in {str(plan.run(run).mix) for run in plan.trained}:
        counts += Counter(generate=experiment.mixes[name].shards, mix=1)
    for run in plan.caches.values():
        counts["cache_teacher"] += len(plan.cache_shards(run))
    for run, evaluation in plan.evaluations():
        shards = len(plan.evaluation_shards(run, evaluation))
        counts += Counter(evaluate_shard=shards, merge_evaluation=1) if shards else Counter(evaluate=1)
    quantised = [run for run in experiment.runs if plan.method(run).quantised]
    counts += Counter(
        clip=len(plan.clips),
        baseline=len(plan.baselines),
        tokenize=len(plan.token_files),
        warm_start=sum(len(plan.warm_start(run)) for run in plan.trained),
        train=len(plan.trained),
        export=len(quantised),
        convert=len(plan.conversions),
        tabulate=1,
    )
    return {rule: count for rule, count in counts.items() if count}


def _models(plan: Recipes) -> list[str]:
    experiment = plan.experiment
    names = [run.model for run in experiment.runs.values()]
    for run in plan.trained:
        names += [plan.teacher(run), experiment.mixes[str(plan.run(run).mix)].teacher]
    return list(dict.fromkeys(names))


def _gpu_hours(plan: Recipes, jobs: dict[str, int]) -> float:
    nodes = {"train": sum(plan.run(run).nodes for run in plan.trained)}
    total = 0.0
    for rule, count in jobs.items():
        wanted = getattr(plan.experiment.resources, STAGES.get(rule, rule), None)
        if wanted is not None:
            total += nodes.get(rule, count) * wanted.gpu * wanted.runtime / 60
    return total


def _disk(plan: Recipes, sizes: dict[str, float]) -> float:
    total = sum(size * _bytes(plan.experiment.models[name]) for name, size in sizes.items())
    for name, run in plan.experiment.runs.items():
        if plan.method(name).train:
            training = plan.training(name)
            kept = training.keep_checkpoints * (MASTER + MOMENTS[training.optimizer]) + MASTER
            total += (kept + MASTER) * sizes[run.model]  # the student is a copy of the best
        if run.number_format is not None:
            total += (format_bits(run.number_format) + OF_A_SCALE) / 8 * sizes[run.model]
    return total


def _bytes(model: Model) -> int:
    return 2 if model.dtype == "bfloat16" else 4


def _of_demo(demo: DemoTeacherRecipe) -> float:
    attention = 2 * demo.hidden_size**2 * (1 + demo.kv_heads / demo.heads)
    block = attention + 3 * demo.hidden_size * demo.intermediate_size
    return demo.layers * block + demo.vocabulary * demo.hidden_size
