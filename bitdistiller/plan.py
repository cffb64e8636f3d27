"""What an experiment consists of: the path of every output, the recipe of every job, the checks before the first."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from bitdistiller.config import (
    METHODS,
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
    Method,
    Mix,
    Resources,
    Run,
    TokenizeRecipe,
    Training,
    TrainRecipe,
    WarmStartRecipe,
)
from bitdistiller.environments import BASELINES, SERVE, Environment
from bitdistiller.errors import InputError

RESULTS = Path("results")


def image(root: Path, kind: str) -> str:
    """The container image of a kind of work in the repository `root`, for Snakemake's `--sdm apptainer`."""
    return str(root / "envs" / "images" / f"{kind}.sif")


def main_process_directory(results: Path) -> Path:
    """Where the one main process that may run jobs for `results` has its lock."""
    return results / ".main-process"


class Plan:
    """Paths follow `results/{model}/{run}/...`; nothing here reads a file but `check`."""

    def __init__(self, experiment: Experiment, results: Path = RESULTS) -> None:
        self.experiment = experiment
        self.results = results

    # paths

    def base(self, model: str) -> Path:
        """Output directory of `fetch` or `pretrain-demo`; the model itself is in `model/` below it."""
        return self.results / model / "base"

    def shard(self, mix: str, shard: int) -> Path:
        """Output directory of one shard of `generate`."""
        return self.results / self.experiment.mixes[mix].teacher / "mixes" / mix / "shards" / f"{shard:05d}"

    def mix(self, mix: str) -> Path:
        """Output directory of `mix`."""
        return self.results / self.experiment.mixes[mix].teacher / "mixes" / mix / "mix"

    def tokens(self, run: str) -> Path:
        """Output directory of `tokenize`, shared by all runs of one mix, maximal length and tokenizer."""
        mix = str(self.run(run).mix)
        return self.results / self.experiment.mixes[mix].teacher / "mixes" / mix / self.tokens_name(run)

    def cache(self, run: str, shard: int) -> Path:
        """Output directory of one shard of `cache-teacher`, shared by all runs that need the same of one teacher."""
        directory = self.results / self.teacher(run) / "mixes" / str(self.run(run).mix) / self.cache_name(run)
        return directory / "shards" / f"{shard:05d}"

    def clip(self, run: str) -> Path:
        """Output directory of `clip`, shared by all runs with the same calibration, format and group size."""
        return self.results / self.run(run).model / "clip" / self.clip_name(run)

    def gram(self, run: str, shard: int) -> Path:
        """Output directory of one shard of `gram`, shared by all runs with the same calibration and group size."""
        return self.results / self.run(run).model / "grams" / self.gram_name(run) / "shards" / f"{shard:05d}"

    def run_directory(self, run: str) -> Path:
        """Directory of everything that belongs to one run alone."""
        return self.results / self.run(run).model / run

    def baseline(self, run: str) -> Path:
        """Output directory of `baseline`."""
        return self.run_directory(run) / "baseline"

    def warm_start(self, run: str) -> list[Path]:
        """Output directory of `warm-start`, as a list; an empty one for a run without it."""
        return [self.run_directory(run) / "warm-start"] if self.training(run).warm_start else []

    def train(self, run: str) -> Path:
        """Output directory of `train`."""
        return self.run_directory(run) / "train"

    def export(self, run: str) -> Path:
        """Output directory of `export`."""
        return self.run_directory(run) / "export"

    def conversion(self, run: str, layout: str) -> Path:
        """Output directory of `convert` for one further layout of a run."""
        return self.run_directory(run) / "layouts" / layout

    @property
    def conversions(self) -> list[Path]:
        """Output directories of all of them."""
        return [self.conversion(name, layout) for name, run in self.experiment.runs.items() for layout in run.layouts]

    def evaluation(self, run: str, evaluation: str) -> Path:
        """Output directory of one evaluation of one run."""
        return self.run_directory(run) / "evaluation" / evaluation

    def evaluation_shards(self, run: str, evaluation: str) -> list[str]:
        """Output directories of the shards of one evaluation of one run; none where it is one job."""
        count, folder = self.experiment.evaluations[evaluation].shards, self.evaluation(run, evaluation) / "shards"
        return [str(folder / f"{shard:05d}") for shard in range(count)] if count > 1 else []

    @property
    def tables(self) -> Path:
        """Output directory of `tabulate`."""
        return self.results / "tables" / self.experiment.experiment

    def evaluations(self) -> Iterator[tuple[str, str]]:
        """Every (run, evaluation) of the experiment."""
        return ((run, name) for run in self.experiment.runs for name in self.experiment.evaluations_of(run))

    def packed_weights(self, run: str) -> Path:
        """The directory, inside a stage's output, whose weights `export` packs."""
        method = self.method(run)
        if method.train:
            return self.train(run) / "student"
        if method.baseline:
            return self.baseline(run) / "quantised"
        return self.base(self.run(run).model) / "model"

    def evaluated_model(self, run: str) -> Path:
        """The model directory that the evaluations of a run load."""
        if self.method(run).quantised:
            return self.export(run) / "checkpoint"
        return self.base(self.run(run).model) / "model"

    def reference(self, run: str, evaluation: str) -> list[Path]:
        """The full-precision model that an evaluation compares with, as a list; an empty one for most."""
        compares = self.experiment.evaluations[evaluation].kind == "agreement"
        return [self.base(self.run(run).model) / "model"] if compares else []

    def compared_models(self, run: str, evaluation: str) -> list[str]:
        """Output directories of the models that an evaluation loads."""
        models = [self.evaluated_model(run), *self.reference(run, evaluation)]
        return [str(path.parent) for path in models]

    def evaluate_options(self, run: str, evaluation: str) -> str:
        """Options of the command `evaluate` that name these models."""
        reference = [f"--reference {path}" for path in self.reference(run, evaluation)]
        return " ".join([f"--model {self.evaluated_model(run)}", *reference])

    @property
    def sharded(self) -> list[str]:
        """Evaluations whose items are divided over jobs."""
        return [name for name, evaluation in self.experiment.evaluations.items() if evaluation.shards > 1]

    # names and recipes

    def run(self, name: str) -> Run:
        """The run called `name`."""
        return self.experiment.runs[name]

    def method(self, run: str) -> Method:
        """The method of a run."""
        return METHODS[self.run(run).method]

    def training(self, run: str) -> Training:
        """The training of a run."""
        return self.experiment.trainings[str(self.run(run).training)]

    def teacher(self, run: str) -> str:
        """The model that a run distils from."""
        return self.run(run).teacher or self.run(run).model

    @property
    def trained(self) -> list[str]:
        """The runs that train a student."""
        return [name for name in self.experiment.runs if self.method(name).train]

    def tokens_name(self, run: str) -> str:
        """Maximal length, and the tokenizer where it is not that of the mix's writer, as one readable name."""
        return f"tokens-{self.training(run).max_length}{self._other_tokenizer(run)}"

    def cache_name(self, run: str) -> str:
        """What is kept of which sequences in which precision as one readable name."""
        training, cache = self.training(run), self.training(run).cache
        kind = f"top{cache.k}" if cache.kind == "topk" else cache.kind
        precision = "-float32" if training.precision == "float32" else ""
        shards = f"-{cache.shards}shards" if cache.shards > 1 else ""
        return f"teacher-{kind}-{training.max_length}{self._other_tokenizer(run)}{precision}{shards}"

    def _other_tokenizer(self, run: str) -> str:
        chosen = self.run(run)
        return "" if chosen.model == self.experiment.mixes[str(chosen.mix)].teacher else f"-{chosen.model}"

    @cached_property
    def token_files(self) -> dict[tuple[str, str, str], str]:
        """A run for every (writer of the mix, mix, name of the token file)."""
        mixes = self.experiment.mixes
        return {
            (mixes[str(self.run(name).mix)].teacher, str(self.run(name).mix), self.tokens_name(name)): name
            for name in self.trained
        }

    @cached_property
    def caches(self) -> dict[tuple[str, str, str], str]:
        """A run for every (teacher, mix, name of the cache)."""
        return {
            (self.teacher(name), str(self.run(name).mix), self.cache_name(name)): name
            for name in self.trained
            if self.training(name).teacher == "cached"
        }

    def cache_shards(self, run: str) -> list[Path]:
        """Output directories of the shards that a run reads; none where its teacher is live."""
        training = self.training(run)
        return [self.cache(run, n) for n in range(training.cache.shards)] if training.teacher == "cached" else []

    def clip_name(self, run: str) -> str:
        """Calibration, format, group size and scale precision as one readable name."""
        chosen = self.run(run)
        scale = "-scale32" if chosen.scale_dtype == "float32" else ""
        pad = "-pad" if chosen.pad else ""
        return f"{chosen.calibration}-{chosen.format}-g{chosen.group_size}{scale}{pad}"

    @cached_property
    def clips(self) -> dict[tuple[str, str], str]:
        """A run for every (model, clip name)."""
        return {
            (run.model, self.clip_name(name)): name
            for name, run in self.experiment.runs.items()
            if self.method(name).clip
        }

    def gram_name(self, run: str) -> str:
        """Calibration and group size as one readable name."""
        chosen = self.run(run)
        return f"{chosen.calibration}-g{chosen.group_size}{'-pad' if chosen.pad else ''}"

    @cached_property
    def grams(self) -> dict[tuple[str, str], str]:
        """A run for every (model, gram name)."""
        return {(self.run(name).model, self.gram_name(name)): name for name in self.clips.values()}

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
        return TokenizeRecipe(max_length=self.training(run).max_length)

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

    def table_recipe(self) -> Experiment:
        """Recipe of `tabulate`: the experiment without what changes no number: resources, nodes, layouts, shards."""
        evaluations = {n: e.model_copy(update={"shards": 1}) for n, e in self.experiment.evaluations.items()}
        runs = {name: run.model_copy(update={"nodes": 1, "layouts": []}) for name, run in self.experiment.runs.items()}
        changes = {"resources": Resources(), "runs": runs, "evaluations": evaluations}
        return self.experiment.model_copy(update=changes)

    def _corpus(self, model: str, dataset: str, split: str) -> Path:
        if self.experiment.models[model].demo is None:
            raise InputError(f"models.{model}: dataset {dataset} needs a demo model, or give a path")
        return self.base(model) / "corpus" / f"{dataset}.{split}.jsonl"

    # checks before the first job

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
        for mix in self.experiment.mixes:
            self.mix_recipe(mix)
        for clipped in self.clips.values():
            self.clip_recipe(clipped)
        for run_name in self.baselines:
            self.baseline_recipe(run_name)

    @property
    def baselines(self) -> list[str]:
        """The runs whose weights a library chooses."""
        return [name for name in self.experiment.runs if self.method(name).baseline]

    def environments(self) -> Iterator[tuple[str, str, Environment]]:
        """Rule, what in the experiment asks for it, and environment, of all work that cannot run in ours."""
        for run in self.baselines:
            yield "baseline", f"runs.{run}: method {self.run(run).method}", BASELINES
        for name, mix in self.experiment.mixes.items():
            if mix.generation.engine == "vllm":
                yield "generate", f"mixes.{name}.generation.engine: vllm", SERVE
        for name, evaluation in self.experiment.evaluations.items():
            if getattr(evaluation, "engine", None) == "vllm":
                yield "evaluate", f"evaluations.{name}.engine: vllm", SERVE

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

    def _check_group_size(self, name: str, run: Run) -> None:
        if run.format is None:
            return
        config = self._model_config(run.model)
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
