"""The predictions of one evaluation as outcomes that can be paired with another run's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitdistiller.errors import InputError
from bitdistiller.stages.damage import damaged_file
from bitdistiller.stages.files import read_json, read_json_lines

Record = dict[str, Any]
NOT_PROTOCOL = ("dtype",)
"""What may differ between two runs that are compared."""


@dataclass(frozen=True)
class Kind:
    """How a record of an evaluation counts: which field, whether more of it is better, and the item's weight."""

    field: str
    higher_is_better: bool
    weight: str = ""
    names: tuple[str, ...] = ("id",)
    """Fields that tell an item from the others."""


KINDS: dict[str, Kind] = {
    "perplexity": Kind("nll", higher_is_better=False, weight="tokens", names=("index",)),
    "agreement": Kind("kl", higher_is_better=False, weight="tokens", names=("index",)),
    "math": Kind("correct", higher_is_better=True),
    "code": Kind("passed", higher_is_better=True, names=("id", "attempt")),
    "multiple_choice": Kind("", higher_is_better=True, names=("task", "id")),
}
"""By kind of evaluation; that of multiple choice counts the metric of its protocol."""


@dataclass(frozen=True)
class Predictions:
    """One evaluation of one run; `records` by item, in the order of the file."""

    name: str
    label: str
    kind: str
    field: str
    protocol: Record
    records: dict[str, Record]

    @property
    def counts(self) -> Kind:
        """How a record counts."""
        return KINDS[self.kind]

    def value(self, item: str) -> float:
        """The outcome of an item: nats, or 0 or 1."""
        return float(self.records[item][self.field])

    def weight(self, item: str) -> float:
        """How much the item counts in the mean."""
        return float(self.records[item][self.counts.weight]) if self.counts.weight else 1.0


def read(directory: Path) -> Predictions:
    """
    The predictions in an output directory of `evaluate`.

    Raises InputError where that is not finished, was damaged, or holds items without an outcome.
    """
    for name in ("metrics.json", "predictions.jsonl"):
        if not (directory / name).is_file():
            raise InputError(f"{directory}: no {name} in it; give the output of a finished evaluation")
    damaged = damaged_file(directory)
    if damaged:
        raise InputError(f"{damaged}: differs from its digest.json; evaluate again")
    content = read_json(directory / "metrics.json")
    kind = KINDS.get(content["kind"])
    if kind is None:
        raise InputError(f"{directory}: evaluations of kind {content['kind']} are not compared item by item")
    field = kind.field or content["protocol"].get("metric", "acc")
    records = list(read_json_lines(directory / "predictions.jsonl"))
    reasons = [metric["reason"] for metric in content["metrics"].values() if metric.get("reason")]
    if not records or any(record.get(field) is None for record in records):
        raise InputError(f"{directory}: not measured ({reasons[0] if reasons else f'items without {field}'})")
    found = {_item(record, kind.names): record for record in records}
    if len(found) < len(records):
        raise InputError(f"{directory}: {len(records) - len(found)} items have the name of another")
    label = content.get("label") or content["evaluation"]
    return Predictions(content["evaluation"], label, content["kind"], field, content["protocol"], found)


def _item(record: Record, names: tuple[str, ...]) -> str:
    return " ".join(str(record[name]) for name in names if name in record)


def require_one_protocol(one: Predictions, other: Predictions) -> None:
    """Raises InputError, naming the first difference, where two evaluations were not measured in the same way."""
    if one.kind != other.kind:
        raise InputError(f"{one.name} is of kind {one.kind}, {other.name} of kind {other.kind}; these are not compared")
    for key in sorted({*one.protocol, *other.protocol} - {*NOT_PROTOCOL}):
        values = [json.dumps(protocol.get(key)) for protocol in (one.protocol, other.protocol)]
        if values[0] != values[1]:
            raise InputError(f"{one.name}: measured in two ways: {key} is {values[0]} in A and {values[1]} in B")


def evaluations(run: str, results: Path) -> dict[str, Path]:
    """
    Output directories of evaluations by name: of one such directory, of a run's, or of the run with a name.

    Raises InputError where there is none, or more than one run has the name.
    """
    given = Path(run)
    if (given / "metrics.json").is_file():
        return {given.name: given}
    places = [given] if given.is_dir() else sorted(path for path in results.glob(f"*/{run}") if path.is_dir())
    if len(places) > 1:
        raise InputError(f"{run}: more than one run has this name ({', '.join(map(str, places))}); give its directory")
    found = _finished(places[0] / "evaluation") if places else {}
    if not found:
        raise InputError(f"{run}: no finished evaluation; give a run, its directory, or the output of an evaluation")
    return found


def _finished(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/metrics.json"))}
