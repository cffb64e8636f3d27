"""What a table says of a run before anything is measured: model title, bits, method, format."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bitdistiller.config import METHODS, Average, Evaluation, Experiment, MultipleChoiceEvaluation, format_bits

FULL_PRECISION = {"bfloat16": ("BF16", 16), "float32": ("FP32", 32)}
MAIN_METRIC = {"perplexity": "perplexity", "agreement": "kl", "math": "exact_match", "code": "pass@1"}
LOWER_IS_BETTER = ("perplexity", "agreement")


@dataclass(frozen=True)
class RunIdentity:
    """
    One run's place in a table.

    `quantised_format` is None for the unquantised model; `group_size` too, and where there are no groups.
    """

    model: str
    model_title: str
    run: str
    method: str
    method_title: str
    format: str
    quantised_format: str | None
    bits: int
    group_size: int | None
    trained: bool


def identify(experiment: Experiment, name: str) -> RunIdentity:
    """The identity of the run `name`."""
    run = experiment.runs[name]
    model, method = experiment.models[run.model], METHODS[run.method]
    common = {"model": run.model, "model_title": model.title or run.model, "run": name, "method": run.method}
    number_format = run.number_format
    if number_format is None:
        label, bits = FULL_PRECISION[model.dtype]
        title = method.title if bits == 16 else "Full precision"
        return RunIdentity(
            **common,
            method_title=title,
            format=label,
            quantised_format=None,
            bits=bits,
            group_size=None,
            trained=method.train,
        )
    return RunIdentity(
        **common,
        method_title=method.title,
        format=number_format.upper(),
        quantised_format=number_format,
        bits=format_bits(number_format),
        group_size=run.group_size if method.grouped else None,
        trained=method.train,
    )


def unquantised(frame: pd.DataFrame) -> pd.Series:
    """Which rows of the tidy table are of full-precision models."""
    return frame["format"].isin([label for label, _ in FULL_PRECISION.values()])


def in_table_order(experiment: Experiment) -> list[RunIdentity]:
    """All runs: models as in the experiment file, then bits from high to low, then as in the file."""
    models = list(experiment.models)
    identities = [identify(experiment, name) for name in experiment.runs]
    return sorted(identities, key=lambda identity: (models.index(identity.model), -identity.bits))


def main_metric(evaluation: Evaluation) -> str:
    """The metric of an evaluation that stands in the table."""
    if isinstance(evaluation, MultipleChoiceEvaluation):
        return evaluation.metric
    return MAIN_METRIC[evaluation.kind]


def column(experiment: Experiment, name: str) -> Evaluation | Average:
    """The evaluation or the average that a column of the table is called after."""
    return experiment.evaluations[name] if name in experiment.evaluations else experiment.averages[name]


def label(experiment: Experiment, name: str) -> str:
    """Column heading of an evaluation or an average."""
    return column(experiment, name).label or name
