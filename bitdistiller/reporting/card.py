"""The model card of a packed checkpoint: what it is, how it was made, how it scores, how to load it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from bitdistiller.config import INTEGERS, METHODS, Experiment, mixed_bits
from bitdistiller.plan import Plan
from bitdistiller.reporting import quantities
from bitdistiller.reporting.collect import Collected
from bitdistiller.reporting.notes import items_of
from bitdistiller.reporting.runs import RunIdentity, identify, unquantised
from bitdistiller.reporting.sources import DigestFile, Sources

UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class Score:
    """One metric of the run, and of the unquantised model where that was measured too, as printed."""

    label: str
    metric: str
    value: str
    n: str
    full: str


def cards(experiment: Experiment, collected: Collected, results: Path) -> dict[str, str]:
    """The card of every quantised run whose checkpoint is finished, as Markdown with YAML front matter, by run."""
    plan, sources = Plan(experiment, Path()), Sources(results)
    exported = (run for run, file in collected.exports.items() if file.weights is not None)
    found = (identify(experiment, run) for run in exported)
    return {i.run: render(i, experiment, collected, plan, sources) for i in found if i.quantised_format}


def render(identity: RunIdentity, experiment: Experiment, collected: Collected, plan: Plan, sources: Sources) -> str:
    """The card of one run."""
    run, model = experiment.runs[identity.run], experiment.models[identity.model]
    licence = model.license or _front_matter(sources.root / plan.base(identity.model) / "model").get("license")
    digest = sources.read(plan.export(identity.run) / "digest.json", DigestFile)
    environment = Environment(
        loader=PackageLoader("bitdistiller.reporting", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md").render(
        identity=identity,
        run=run,
        model=model,
        origin=model.hub or identity.model_title,
        front=_yaml(_front(identity, model.hub, licence or UNKNOWN_LICENCE)),
        licence=licence,
        served=run.format in INTEGERS and not run.pad,
        grouped=METHODS[run.method].grouped,
        bits=mixed_bits(str(run.number_format)),
        zero_signs=(collected.exports[identity.run].verified or {}).get("zero_signs"),
        export=collected.exports[identity.run],
        scores=list(_scores(identity, collected)),
        sources=_data(run.mix, plan, sources),
        recipe=_yaml(recipe_of(experiment, identity.run)),
        weights=_weights(digest),
    )


def recipe_of(experiment: Experiment, name: str) -> dict[str, Any]:
    """The part of an experiment that makes one run, as an experiment file of its own; defaults are left out."""
    content = experiment.model_dump(mode="json", exclude_defaults=True, exclude={"resources", "title", "paper"})
    run = experiment.runs[name]
    writer = experiment.mixes[run.mix].teacher if run.mix else None
    kept = {
        "models": {run.model, run.teacher, writer},
        "calibrations": {run.calibration},
        "mixes": {run.mix},
        "trainings": {run.training},
        "evaluations": set(experiment.evaluations_of(name)),
        "runs": {name},
    }
    chosen = {
        section: {name: value for name, value in content.get(section, {}).items() if name in names}
        for section, names in kept.items()
    }
    return {"experiment": name} | {section: values for section, values in chosen.items() if values}


def _front(identity: RunIdentity, hub: str | None, licence: str) -> dict[str, Any]:
    front: dict[str, Any] = {"license": licence, "library_name": "transformers", "pipeline_tag": "text-generation"}
    front |= {"base_model": hub, "base_model_relation": "quantized"} if hub else {}
    return front | {"tags": ["quantized", identity.format.lower(), identity.method]}


def _front_matter(directory: Path) -> dict[str, Any]:
    """What the README of a model says in its YAML head; nothing where it has none."""
    try:
        text = (directory / "README.md").read_text(encoding="utf-8")
        head = text.split("---\n")[1] if text.startswith("---\n") else ""
        content = yaml.safe_load(head)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return {}
    return content if isinstance(content, dict) else {}


def _scores(identity: RunIdentity, collected: Collected) -> Iterator[Score]:
    frame = collected.frame
    own = frame[(frame["run"] == identity.run) & frame["value"].notna()]
    full = frame[(frame["model"] == identity.model) & unquantised(frame) & frame["value"].notna()]
    beside = {(row.evaluation, row.metric): _printed(row) for row in full.itertuples()}
    for row in own.itertuples():
        n = f"{row.n}{items_of(row.n, row.total)} {row.unit}".strip()
        yield Score(row.label, row.metric, _printed(row), n, beside.get((row.evaluation, row.metric), ""))


def _printed(row: Any) -> str:
    value = quantities.printed(float(row.value), row.quantity).plain
    if row.standard_error is None or row.standard_error != row.standard_error:
        return value
    return f"{value} ± {quantities.standard_error(float(row.standard_error), float(row.value), row.quantity).plain}"


def _data(mix: str | None, plan: Plan, sources: Sources) -> list[dict[str, Any]]:
    content = sources.read(plan.mix(mix) / "digest.json", DigestFile) if mix else None
    return list(content.counts.get("sources", [])) if content else []


def _weights(digest: DigestFile | None) -> list[tuple[str, str]]:
    files = digest.files if digest else {}
    return [(name.rpartition("/")[2], file["sha256"]) for name, file in files.items() if name.endswith(".safetensors")]


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip()
