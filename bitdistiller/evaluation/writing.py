"""Which engine writes the answers of an evaluation, and a model that one other than ours has loaded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from bitdistiller.config import EvaluateRecipe, Evaluation, GenerativeEvaluation
from bitdistiller.evaluation.subject import Subject
from bitdistiller.export.directory import companions, quant_method, read_config, student_quantization
from bitdistiller.generation import serving
from bitdistiller.generation.engine import Engine, Wanted
from bitdistiller.generation.engines import open_engine, settle
from bitdistiller.stages import Stage
from bitdistiller.stages.unavailable import why_unavailable


@dataclass
class Written:
    """A model that its engine alone has loaded: it answers prompts, and has neither logits nor likelihoods."""

    engine: Engine

    @property
    def context(self) -> int:
        """Longest sequence in tokens."""
        return self.engine.context


def enter(evaluation: Evaluation, model: Path) -> None:
    """Go on in the serving environment where the evaluation wants vLLM; see generation.serving."""
    if not why_unavailable(model):
        serving.enter(configured(evaluation, model))


def configured(evaluation: Evaluation, model: Path) -> str:
    """The engine as configured; transformers for an evaluation without answers, and by `auto` for quantised models."""
    if not isinstance(evaluation, GenerativeEvaluation):
        return "transformers"
    return "transformers" if evaluation.engine == "auto" and not is_plain(model) else evaluation.engine


def is_plain(model: Path) -> bool:
    """Whether a directory holds a full-precision model, which every engine reads."""
    if not (model / "config.json").is_file():
        return False
    return quant_method(read_config(model)) is None and student_quantization(model) is None


def open_subject(stage: Stage, recipe: EvaluateRecipe, model: Path, reference: Path | None = None) -> Subject | Written:
    """
    The model, loaded by what the evaluation needs: by transformers, or by the engine that writes its answers.

    reference: another model to load beside it.
    """
    evaluation = recipe.evaluation
    if not isinstance(evaluation, GenerativeEvaluation):
        return Subject.load(model, recipe.dtype, reference=reference)
    name = settle(configured(evaluation, model), stage.work)
    if name == "transformers":
        return Subject.load(model, recipe.dtype, evaluation.batch_size)
    dense = stage.work / "dense"
    readable = model if is_plain(model) else write_dense(model, recipe.dtype, dense)
    engine = open_engine(name, Wanted(readable, recipe.dtype, tensor_parallel=evaluation.tensor_parallel))
    shutil.rmtree(dense, ignore_errors=True)
    return Written(engine)


def write_dense(model: Path, dtype: str, directory: Path) -> Path:
    """Write the weights that a student or a packed checkpoint stands for as ordinary tensors; returns `directory`."""
    from bitdistiller.export.load import load_dense

    shutil.rmtree(directory, ignore_errors=True)
    load_dense(model, dtype).save_pretrained(directory)
    for path in companions(model):
        shutil.copyfile(path, directory / path.name)
    return directory
