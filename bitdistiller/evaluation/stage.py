"""The stage `evaluate`: one evaluation of one model."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from bitdistiller.config import OFFICIAL_TASKS, EvaluateRecipe
from bitdistiller.errors import InputError
from bitdistiller.evaluation.metrics import Metric, unmeasured
from bitdistiller.evaluation.subject import Subject
from bitdistiller.evaluation.writing import Written, open_subject
from bitdistiller.generation.engines import recorded
from bitdistiller.stages import Stage, open_stage
from bitdistiller.stages.files import json_line, read_json_lines, sync, write_json
from bitdistiller.stages.unavailable import why_unavailable

PREDICTIONS = "predictions.jsonl"
METRICS = "metrics.json"
# An evaluation's module has predict(stage, evaluation, subject) -> records, protocol and measure(records, evaluation).
KINDS = {
    "perplexity": "bitdistiller.evaluation.perplexity",
    "agreement": "bitdistiller.evaluation.agreement",
    "math": "bitdistiller.evaluation.gsm8k",
    "code": "bitdistiller.evaluation.code",
    "multiple_choice": "bitdistiller.evaluation.harness",
}
# The metric, and whether more of it is better, of an evaluation that has no model.
UNMEASURED = {
    "perplexity": ("perplexity", False),
    "agreement": ("kl", False),
    "math": ("exact_match", True),
    "code": ("pass@1", True),
    "multiple_choice": ("acc", True),
}
COMPARING = ("agreement",)
# Neither what a column is called nor where its file lies changes a prediction; the file's content is an input.
NOT_IDENTITY = {"evaluation": {"label", "published", "path"}}


def run(
    recipe: EvaluateRecipe,
    *,
    model: Path,
    output: Path,
    reference: Path | None = None,
    work: Path | None = None,
    time_budget: float | None = None,
) -> None:
    """
    Evaluate the model in the directory `model`; `output` receives predictions.jsonl and metrics.json.

    reference: the full-precision model that `agreement` compares with; other kinds take none.

    The metrics are computed from the predictions as they were written. A directory that says why it holds no model
    gives no predictions and a metric without a value, with that reason. time_budget is in minutes.
    """
    path = recipe.evaluation.path
    if (reference is not None) != (recipe.evaluation.kind in COMPARING):
        raise InputError(f"--reference: {recipe.evaluation.kind} {'takes none' if reference else 'needs one'}")
    beside = {"data": path, "reference": reference}
    with open_stage(
        "evaluate",
        version=2,
        recipe=recipe.model_dump(mode="json", exclude_defaults=True, exclude=NOT_IDENTITY) | _definition(recipe),
        inputs={"model": Path(model)} | {name: Path(place) for name, place in beside.items() if place is not None},
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        reason = why_unavailable(model)
        if reason:
            pass_on(stage, recipe, reason)
        else:
            evaluate(stage, recipe, open_subject(stage, recipe, Path(model), reference))


def _definition(recipe: EvaluateRecipe) -> dict[str, str]:
    """Whose prompts the questions of a local file are set into, where that is not ours."""
    evaluation = recipe.evaluation
    theirs = evaluation.kind == "multiple_choice" and evaluation.path is not None and evaluation.task in OFFICIAL_TASKS
    return {"definition": "lm-eval"} if theirs else {}


def evaluate(stage: Stage, recipe: EvaluateRecipe, subject: Subject | Written) -> None:
    """The evaluation within its stage."""
    evaluation = recipe.evaluation
    kind = import_module(KINDS[evaluation.kind])
    with stage.deadline.excusing():
        records, protocol = kind.predict(stage, evaluation, subject)
    predictions = stage.output_file(PREDICTIONS)
    with predictions.open("w", encoding="utf-8") as handle:
        handle.writelines(map(json_line, records))
    sync(predictions)
    stage.commit()
    metrics = kind.measure(list(read_json_lines(predictions)), evaluation)
    if "total_items" in protocol:
        metrics = {name: metric | {"total": protocol["total_items"]} for name, metric in metrics.items()}
    _write_metrics(stage, recipe, metrics, protocol)
    engine = recorded(stage.work)
    stage.finish(counts={"predictions": len(records)}, details={"engine": engine} if engine else {})


def pass_on(stage: Stage, recipe: EvaluateRecipe, reason: str) -> None:
    """The outputs of an evaluation of a model that there is not."""
    stage.output_file(PREDICTIONS).touch()
    name, better = UNMEASURED[recipe.evaluation.kind]
    _write_metrics(stage, recipe, {name: unmeasured(reason, 0, "", higher_is_better=better)}, {})
    stage.finish(counts={"predictions": 0})


def _write_metrics(stage: Stage, recipe: EvaluateRecipe, metrics: dict[str, Metric], protocol: dict[str, Any]) -> None:
    evaluation = recipe.evaluation
    content = {
        "evaluation": recipe.name,
        "kind": evaluation.kind,
        "label": evaluation.label or recipe.name,
        "metrics": metrics,
        "protocol": protocol | {"dtype": recipe.dtype},
    }
    write_json(stage.output_file(METRICS), content)
