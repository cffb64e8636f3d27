"""The stage `evaluate`: one evaluation of one model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bitdistiller.config import OFFICIAL_TASKS, EvaluateRecipe
from bitdistiller.errors import InputError
from bitdistiller.evaluation.batches import PartDone, Share
from bitdistiller.evaluation.metrics import Metric, unmeasured
from bitdistiller.evaluation.sharding import StageOfShard, place, write_shard
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
# Neither a column's heading, nor its file's place, nor shards change a prediction; the file's content is an input.
NOT_IDENTITY = {"evaluation": {"label", "published", "path", "shards"}}


def run(
    recipe: EvaluateRecipe,
    *,
    model: Path,
    output: Path,
    reference: Path | None = None,
    parts: Sequence[Path] = (),
    work: Path | None = None,
    time_budget: float | None = None,
) -> None:
    """
    Evaluate the model in the directory `model`; `output` receives predictions.jsonl and metrics.json.

    reference: the full-precision model that `agreement` compares with; other kinds take none. parts: outputs of
    `run_shard`, all of them, that did the work already; no weights are loaded then.

    The metrics are computed from the predictions as they were written. A directory that says why it holds no model
    gives no predictions and a metric without a value, with that reason. time_budget is in minutes.
    """
    with open_stage(
        "evaluate",
        version=2,
        recipe=_identity(recipe),
        inputs=_inputs(recipe, model, reference) | {f"part {i}": Path(part) for i, part in enumerate(parts)},
        output=output,
        work=work,
        time_budget=time_budget,
    ) as stage:
        reason = why_unavailable(model)
        if reason:
            pass_on(stage, recipe, reason)
        elif parts:
            context = place(stage, list(map(Path, parts)))
            size = recipe.evaluation.batch_size
            evaluate(stage, recipe, Subject.without_weights(Path(model), context, size, reference))
        else:
            evaluate(stage, recipe, open_subject(stage, recipe, Path(model), reference))


def run_shard(
    recipe: EvaluateRecipe,
    *,
    shard: int,
    shards: int,
    model: Path,
    output: Path,
    reference: Path | None = None,
    work: Path | None = None,
    time_budget: float | None = None,
) -> None:
    """
    Do the batches of one shard of an evaluation; `output` receives their records, for `run` with `parts`.

    Raises InputError for a shard that there is not.
    """
    if not 0 <= shard < shards:
        raise InputError(f"--shard: {shard}; accepted: 0 to {shards - 1}, for --num-shards {shards}")
    identity = _identity(recipe) | {"shard": shard, "shards": shards}
    places = {"output": output, "work": work, "time_budget": time_budget}
    with open_stage(
        "evaluate-shard", version=1, recipe=identity, inputs=_inputs(recipe, model, reference), **places
    ) as stage:
        reason = why_unavailable(model)
        if reason:
            write_shard(stage, PartDone("none", 0, {}), 0)
            return
        subject = open_subject(stage, recipe, Path(model), reference)
        with stage.deadline.excusing():
            try:
                kind = import_module(KINDS[recipe.evaluation.kind])
                kind.predict(StageOfShard(stage, Share(shard, shards)), recipe.evaluation, subject)
            except PartDone as done:
                part = done
        write_shard(stage, part, subject.context)


def _identity(recipe: EvaluateRecipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude_defaults=True, exclude=NOT_IDENTITY) | _definition(recipe)


def _inputs(recipe: EvaluateRecipe, model: Path, reference: Path | None) -> dict[str, Path]:
    """The files that the predictions depend on; InputError for a reference too many or too few."""
    if (reference is not None) != (recipe.evaluation.kind in COMPARING):
        raise InputError(f"--reference: {recipe.evaluation.kind} {'takes none' if reference else 'needs one'}")
    places = {"model": model, "data": recipe.evaluation.path, "reference": reference}
    return {name: Path(place) for name, place in places.items() if place is not None}


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
