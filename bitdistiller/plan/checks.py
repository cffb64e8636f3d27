"""What is checked before the first job, and where jobs run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from bitdistiller.config import SIGNS, Run
from bitdistiller.environments import BASELINES, SERVE, Environment
from bitdistiller.errors import InputError
from bitdistiller.plan.recipes import Recipes

SIGNS_OF_A_BYTE = 8


class Plan(Recipes):
    """An experiment as jobs. Nothing here reads a file but `check`, `missing_environment` and `local_files`."""

    def check(self) -> None:
        """Local files and models exist and fit the runs; raises InputError with one line."""
        for name, model in self.experiment.models.items():
            if model.path is not None and not (model.path / "config.json").is_file():
                raise InputError(f"models.{name}.path: {model.path} is not a model directory (no config.json in it)")
        for place, path in self._local_paths():
            if not path.exists():
                raise InputError(f"{place}: {path}: no such file")
        for name, run in self.experiment.runs.items():
            self._check_group_size(name, run)
            self._check_vocabulary(name, run)
        for run_name, evaluation in self.evaluations():
            self.evaluate_recipe(run_name, evaluation)
            self._check_engine(run_name, evaluation)
        for mix in self.experiment.mixes:
            self.mix_recipe(mix)
        for clipped in self.clips.values():
            self.clip_recipe(clipped)
        for run_name in self.baselines:
            self.baseline_recipe(run_name)

    def environments(self) -> Iterator[tuple[str, str, Environment]]:
        """Rule, what in the experiment asks for it, and environment, of all work that cannot run in ours."""
        for run in self.baselines:
            yield "baseline", f"runs.{run}: method {self.run(run).method}", BASELINES
        for name, mix in self.experiment.mixes.items():
            if mix.generation.engine == "vllm":
                yield "generate", f"mixes.{name}.generation.engine: vllm", SERVE
        for name, evaluation in self.experiment.evaluations.items():
            if getattr(evaluation, "engine", None) == "vllm":
                rule = "evaluate_shard" if evaluation.shards > 1 else "evaluate"
                yield rule, f"evaluations.{name}.engine: vllm", SERVE

    def missing_environment(self, root: Path, rules: Collection[str] | None = None) -> str:
        """What to do before these rules (None: all) can run in the repository `root`, as one line, or nothing."""
        for rule, asked, environment in self.environments():
            if (rules is None or rule in rules) and environment.is_missing(root):
                return f"{asked} needs {environment.title}; {environment.remedy}"
        return ""

    def mix_kind(self, mix: str) -> str:
        """Kind of work that `generate` is: serve where vLLM is asked for, or `auto` has a GPU, else train."""
        return self._writing_kind("generate", self.experiment.mixes[mix].generation.engine)

    def evaluation_kind(self, run: str, evaluation: str) -> str:
        """Kind of work that `evaluate` is; `auto` leaves quantised models to transformers."""
        engine = getattr(self.experiment.evaluations[evaluation], "engine", "transformers")
        left = engine == "auto" and self.method(run).quantised
        return self._writing_kind("evaluate", "transformers" if left else engine)

    def _writing_kind(self, stage: str, engine: str) -> str:
        serves = engine == "vllm" or (engine == "auto" and getattr(self.experiment.resources, stage).gpu > 0)
        return "serve" if serves else "train"

    def local_files(self) -> list[Path]:
        """Local files that jobs read: those of models, mixes, calibrations and evaluations."""
        models = [model.path for model in self.experiment.models.values() if model.path]
        found = [[*path.glob("*.*")] or [path / "config.json"] for path in models]
        return sorted({path for paths in found for path in paths} | {path for _, path in self._local_paths()})

    def _local_paths(self) -> Iterator[tuple[str, Path]]:
        for name, mix in self.experiment.mixes.items():
            yield from ((f"mixes.{name}.sources.{i}.path", s.path) for i, s in enumerate(mix.sources) if s.path)
        for section in ("calibrations", "evaluations"):
            for name, value in getattr(self.experiment, section).items():
                if value.path:
                    yield f"{section}.{name}.path", value.path

    def _model_config(self, model: str) -> dict[str, Any]:
        path = self.experiment.models[model].path
        return json.loads((path / "config.json").read_text(encoding="utf-8")) if path else {}

    def _check_engine(self, name: str, evaluation: str) -> None:
        method = self.method(name)
        engine = getattr(self.experiment.evaluations[evaluation], "engine", "transformers")
        if engine == "vllm" and method.quantised and not method.grouped:
            raise InputError(
                f"evaluations.{evaluation}.engine: vllm does not serve runs.{name}: its layers (method "
                f"{self.run(name).method}) are more than a weight; accepted: auto, transformers"
            )

    def _check_group_size(self, name: str, run: Run) -> None:
        config = self._model_config(run.model)
        if run.number_format == SIGNS:
            for key in ("hidden_size", "intermediate_size"):
                if config.get(key, SIGNS_OF_A_BYTE) % SIGNS_OF_A_BYTE:
                    raise InputError(
                        f"runs.{name}: {key} {config[key]} of model {run.model}; signs need a multiple of "
                        f"{SIGNS_OF_A_BYTE}"
                    )
        if run.format is None or not self.method(name).grouped:
            return
        for key in ("hidden_size", "intermediate_size"):
            width = config.get(key, run.group_size)
            if width % run.group_size and not run.pad:
                raise InputError(
                    f"runs.{name}.group_size: {run.group_size} does not divide {key} {width} of model {run.model}; "
                    "accepted: a divisor, or pad: true"
                )

    def _check_vocabulary(self, name: str, run: Run) -> None:
        own = self._model_config(run.model).get("vocab_size")
        writer = self.experiment.mixes[run.mix].teacher if run.mix else run.model
        for teacher in dict.fromkeys((writer, self.teacher(name))):
            size = self._model_config(teacher).get("vocab_size")
            if None not in (own, size) and not _one_vocabulary(own, size):
                raise InputError(
                    f"runs.{name}: the vocabularies of student {run.model} ({own}) and of teacher {teacher} "
                    f"({size}) differ; take models of one"
                )


def _one_vocabulary(one: int, other: int) -> bool:
    """Whether two sizes may be of one vocabulary: equal, or apart by the padding of a head to a multiple of 64."""
    return one == other or (max(one, other) % 64 == 0 and abs(one - other) < 1024)
