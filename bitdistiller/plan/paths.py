"""Where every stage writes: `results/{model}/{run}/...`."""

from __future__ import annotations

from pathlib import Path

from bitdistiller.plan.names import Names


class Paths(Names):
    """Paths follow `results/{model}/{run}/...`; nothing here reads a file."""

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

    def cache_shards(self, run: str) -> list[Path]:
        """Output directories of the shards that a run reads; none where its teacher is live."""
        training = self.training(run)
        return [self.cache(run, n) for n in range(training.cache.shards)] if training.teacher == "cached" else []

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
