"""What the models wrote before and after quantisation, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitdistiller.config import GenerativeEvaluation
from bitdistiller.plan import Plan
from bitdistiller.reporting.collect import Collected
from bitdistiller.reporting.runs import RunIdentity, in_table_order
from bitdistiller.reporting.sources import Sources

Record = dict[str, Any]
MOST_ITEMS = 6
OUTCOMES = {"math": "correct", "code": "passed"}


@dataclass(frozen=True)
class Answer:
    """What one run wrote; `right` is None where that is not known."""

    title: str
    text: str
    right: bool | None


@dataclass(frozen=True)
class Sample:
    """One prompt and the answers of the runs, the full-precision one first."""

    item: str
    prompt: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Samples:
    """Prompts of one evaluation of one model."""

    title: str
    samples: tuple[Sample, ...]


def samples(collected: Collected, plan: Plan) -> list[Samples]:
    """For every model and evaluation with answers: items on which runs differ first, then the first ones."""
    experiment, sources = plan.experiment, Sources(plan.results)
    inside = Plan(experiment, Path())
    found = []
    for model in experiment.models:
        identities = [i for i in in_table_order(experiment) if i.model == model]
        for name, evaluation in experiment.evaluations.items():
            if not isinstance(evaluation, GenerativeEvaluation):
                continue
            records = _records(identities, name, collected, inside, sources)
            chosen = _chosen(records, OUTCOMES[evaluation.kind])
            title = f"{experiment.models[model].title or model}: {evaluation.label or name}"
            if chosen:
                found.append(Samples(title, tuple(_sample(item, records, evaluation.kind) for item in chosen)))
    return found


def _records(
    identities: list[RunIdentity], name: str, collected: Collected, plan: Plan, sources: Sources
) -> list[tuple[RunIdentity, dict[str, Record]]]:
    """The records of every run whose evaluation is finished, by item."""
    found = []
    for identity in identities:
        if (identity.run, name) in collected.protocols:
            lines = sources.read_lines(plan.evaluation(identity.run, name) / "predictions.jsonl")
            found.append((identity, {str(line["id"]): line for line in lines if "id" in line}))
    return [(identity, lines) for identity, lines in found if lines]


def _chosen(records: list[tuple[RunIdentity, dict[str, Record]]], outcome: str) -> list[str]:
    if not records:
        return []
    shared = [item for item in records[0][1] if all(item in lines for _, lines in records)]
    differing = [item for item in shared if len({lines[item].get(outcome) for _, lines in records}) > 1]
    kept = differing[: MOST_ITEMS // 2]
    return kept + [item for item in shared if item not in kept][: MOST_ITEMS - len(kept)]


def _sample(item: str, records: list[tuple[RunIdentity, dict[str, Record]]], kind: str) -> Sample:
    def answer(identity: RunIdentity, line: Record) -> Answer:
        return Answer(
            f"{identity.method_title} {identity.format}", line.get("completion", ""), line.get(OUTCOMES[kind])
        )

    prompt = records[0][1][item].get("prompt", "")
    return Sample(item, prompt, tuple(answer(identity, lines[item]) for identity, lines in records))
