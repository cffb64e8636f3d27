"""The recipe of every job, and the options of its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitdistiller.config import (
    SEARCH_ONLY,
    BaselineRecipe,
    CacheRecipe,
    Calibration,
    ClipRecipe,
    EvaluateRecipe,
    Evaluation,
    Experiment,
    ExportRecipe,
    GramRecipe,
    Mix,
    Resources,
    TokenizeRecipe,
    Training,
    TrainRecipe,
    WarmStartRecipe,
)
from bitdistiller.errors import InputError
from bitdistiller.plan.paths import Paths


class Recipes(Paths):
    """Recipes of the stages, with the demo corpus in the place of its data sets."""

    def clip_recipe(self, run: str) -> ClipRecipe:
        """Recipe of `clip`."""
        return ClipRecipe(quantization=self.run(run).quantization, calibration=self._calibration(run))

    def gram_recipe(self, run: str) -> GramRecipe:
        """Recipe of `gram`, without the options of the search, which change no Gram."""
        recipe = self.clip_recipe(run).grams
        defaults = {key: Calibration.model_fields[key].default for key in SEARCH_ONLY}
        return recipe.model_copy(update={"calibration": recipe.calibration.model_copy(update=defaults)})

    def gram_shards(self, run: str) -> list[Path]:
        """Output directories of the shards that `clip` adds up; none where it takes its Grams itself."""
        shards = self._calibration(run).shards
        return [self.gram(run, shard) for shard in range(shards)] if shards > 1 else []

    def baseline_recipe(self, run: str) -> BaselineRecipe:
        """Recipe of `baseline`."""
        chosen, calibration = self.run(run), self._calibration(run)
        return BaselineRecipe(quantization=chosen.quantization, calibration=calibration, method=chosen.method)

    def _calibration(self, run: str) -> Calibration:
        """The calibration of a run, with the demo corpus in place."""
        chosen = self.run(run)
        calibration = self.experiment.calibrations[str(chosen.calibration)]
        if calibration.texts == "demo" and calibration.path is None:
            path = self._corpus(chosen.model, "demo-calibration", "train")
            calibration = calibration.model_copy(update={"path": path})
        return calibration

    def mix_recipe(self, name: str) -> Mix:
        """Recipe of `generate` and `mix`, with the demo corpus in place."""
        mix = self.experiment.mixes[name]
        sources = [
            source.model_copy(update={"path": self._corpus(mix.teacher, source.dataset, "train")})
            if source.dataset.startswith("demo-") and source.path is None
            else source
            for source in mix.sources
        ]
        return mix.model_copy(update={"sources": sources})

    def train_recipe(self, run: str) -> TrainRecipe:
        """Recipe of `train`."""
        return TrainRecipe(quantization=self.run(run).quantization, training=self.training(run))

    def train_inputs(self, run: str) -> list[str]:
        """Options of `train` for the directories that not every run has: another teacher, a cache, a warm start."""
        other = self.teacher(run) != self.run(run).model
        teacher = [f"--teacher {self.base(self.teacher(run)) / 'model'}"] if other else []
        start = [f"--warm-start {path}" for path in self.warm_start(run)]
        return teacher + [f"--cache {path}" for path in self.cache_shards(run)] + start

    def warm_start_recipe(self, run: str) -> WarmStartRecipe:
        """Recipe of `warm-start`."""
        training = self.training(run)
        keys = WarmStartRecipe.model_fields.keys() & Training.model_fields.keys()
        shared = {key: getattr(training, key) for key in keys if getattr(training, key) is not None}
        return WarmStartRecipe(quantization=self.run(run).quantization, **shared)

    def tokenize_recipe(self, run: str) -> TokenizeRecipe:
        """Recipe of `tokenize`."""
        training = self.training(run)
        return TokenizeRecipe(max_length=training.max_length, blocks=training.blocks)

    def cache_recipe(self, run: str) -> CacheRecipe:
        """Recipe of `cache-teacher`; k is left out where it means nothing."""
        training = self.training(run)
        k = {"k": training.cache.k} if training.cache.kind == "topk" else {}
        return CacheRecipe(kind=training.cache.kind, precision=training.precision, **k)

    def export_recipe(self, run: str) -> ExportRecipe:
        """Recipe of `export`."""
        chosen = self.run(run)
        return ExportRecipe(quantization=chosen.quantization, dtype=self.experiment.models[chosen.model].dtype)

    def evaluate_recipe(self, run: str, name: str) -> EvaluateRecipe:
        """Recipe of `evaluate`, with the demo corpus in place; headings of tables are left out of it."""
        model = self.run(run).model
        evaluation: Evaluation = self.experiment.evaluations[name]
        changes: dict[str, Any] = {"label": None, "published": None, "shards": 1}
        dataset = getattr(evaluation, "dataset", "")
        if dataset.startswith("demo-") and evaluation.path is None:
            changes["path"] = self._corpus(model, dataset, "test")
        evaluation = evaluation.model_copy(update=changes)
        return EvaluateRecipe(name=name, evaluation=evaluation, dtype=self.experiment.models[model].dtype)

    def evaluate_options(self, run: str, evaluation: str) -> str:
        """Options of the command `evaluate` that name these models."""
        reference = [f"--reference {path}" for path in self.reference(run, evaluation)]
        return " ".join([f"--model {self.evaluated_model(run)}", *reference])

    def table_recipe(self) -> Experiment:
        """Recipe of `tabulate`: the experiment without the resources and nodes of its jobs, which change no number."""
        runs = {name: run.model_copy(update={"nodes": 1}) for name, run in self.experiment.runs.items()}
        return self.experiment.model_copy(update={"resources": Resources(), "runs": runs})

    def _corpus(self, model: str, dataset: str, split: str) -> Path:
        if self.experiment.models[model].demo is None:
            raise InputError(f"models.{model}: dataset {dataset} needs a demo model, or give a path")
        return self.base(model) / "corpus" / f"{dataset}.{split}.jsonl"
