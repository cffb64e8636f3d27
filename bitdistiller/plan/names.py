"""What the runs of an experiment consist of, and what they share, by readable names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from bitdistiller.config import (
    METHODS,
    Experiment,
    Method,
    Run,
    Training,
)

RESULTS = Path("results")


class Names:
    """Runs with their methods, trainings and teachers; names of what several runs share."""

    def __init__(self, experiment: Experiment, results: Path = RESULTS) -> None:
        self.experiment = experiment
        self.results = results

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

    @property
    def baselines(self) -> list[str]:
        """The runs whose weights a library chooses."""
        return [name for name in self.experiment.runs if self.method(name).baseline]

    @property
    def sharded(self) -> list[str]:
        """Evaluations whose items are divided over jobs."""
        return [name for name, evaluation in self.experiment.evaluations.items() if evaluation.shards > 1]

    def evaluations(self) -> Iterator[tuple[str, str]]:
        """Every (run, evaluation) of the experiment."""
        return ((run, name) for run in self.experiment.runs for name in self.experiment.evaluations_of(run))

    def tokens_name(self, run: str) -> str:
        """Maximal length, and the tokenizer where it is not that of the mix's writer, as one readable name."""
        return f"tokens-{self._cut(run)}{self._other_tokenizer(run)}"

    def cache_name(self, run: str) -> str:
        """What is kept of which sequences in which precision as one readable name."""
        training, cache = self.training(run), self.training(run).cache
        kind = f"top{cache.k}" if cache.kind == "topk" else cache.kind
        precision = "-float32" if training.precision == "float32" else ""
        shards = f"-{cache.shards}shards" if cache.shards > 1 else ""
        return f"teacher-{kind}-{self._cut(run)}{self._other_tokenizer(run)}{precision}{shards}"

    def _cut(self, run: str) -> str:
        training = self.training(run)
        return f"{training.max_length}{'-blocks' if training.blocks else ''}"

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
