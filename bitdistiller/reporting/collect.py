"""From an experiment and its results directory to what the tables and plots show."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bitdistiller.config import Experiment
from bitdistiller.plan import Plan
from bitdistiller.reporting import tidy
from bitdistiller.reporting.clip_reports import read_clips
from bitdistiller.reporting.coverage import Coverage
from bitdistiller.reporting.history import read_history, training_tokens
from bitdistiller.reporting.published import Published
from bitdistiller.reporting.runs import RunIdentity, in_table_order
from bitdistiller.reporting.sources import ExportFile, MetricsFile, Sources

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """
    Everything the tables and plots show.

    `frame` has one row per (model, run, evaluation, metric), columns as in `tidy.COLUMNS`; `history` one row per
    training event, columns as in `history.COLUMNS`; `clips` one per clipped layer, columns as in
    `clip_reports.COLUMNS`. `protocols` is by (run, evaluation), `exports` by run; `used` are
    the files that were read, by path relative to the results directory.
    """

    frame: pd.DataFrame
    history: pd.DataFrame
    clips: pd.DataFrame
    coverage: Coverage
    exports: dict[str, ExportFile]
    protocols: dict[tuple[str, str], dict[str, Any]]
    published: Published | None
    used: dict[str, Path]


def collect(experiment: Experiment, results: Path) -> Collected:
    """
    Read what is finished of `experiment` below `results`; what is missing or damaged is in the coverage.

    Raises InputError when `experiment.paper` names no file of published numbers.
    """
    sources, plan = Sources(Path(results)), Plan(experiment, Path())
    published = Published(experiment.paper) if experiment.paper else None
    identities = in_table_order(experiment)
    exports = {identity.run: _export(identity, plan, sources) for identity in identities}
    exports = {run: content for run, content in exports.items() if content is not None}
    metrics = {
        (identity.run, name): content
        for identity in identities
        for name in experiment.evaluations_of(identity.run)
        if (content := _metrics(plan, identity.run, name, sources)) is not None
    }
    clips, finished_clips = read_clips(plan, sources)
    history = read_history(identities, plan, sources)
    return Collected(
        frame=tidy.frame(experiment, identities, metrics, exports, published, training_tokens(history)),
        history=history,
        clips=clips,
        coverage=replace(_coverage(experiment, identities, set(metrics), set(exports)), clips=finished_clips),
        exports=exports,
        protocols={key: content.protocol for key, content in metrics.items()},
        published=published,
        used=sources.used,
    )


def _export(identity: RunIdentity, plan: Plan, sources: Sources) -> ExportFile | None:
    if identity.quantised_format is None:
        return ExportFile(bits_per_weight=identity.bits)
    return sources.read(plan.export(identity.run) / "export.json", ExportFile)


def _metrics(plan: Plan, run: str, name: str, sources: Sources) -> MetricsFile | None:
    path, kind = plan.evaluation(run, name) / "metrics.json", plan.experiment.evaluations[name].kind
    content = sources.read(path, MetricsFile)
    if content is not None and content.kind != kind:
        logger.warning("%s: measures %s, not %s; counted as not finished", sources.root / path, content.kind, kind)
        return None
    return content


def _coverage(
    experiment: Experiment, identities: list[RunIdentity], measured: set[tuple[str, str]], exported: set[str]
) -> Coverage:
    missing = {}
    for run in (identity.run for identity in identities):
        asked = experiment.evaluations_of(run)
        lacking = [name for name in asked if (run, name) not in measured]
        if not asked and run not in exported:
            lacking = ["checkpoint"]
        if lacking:
            missing[run] = tuple(lacking)
    return Coverage(tuple(identity.run for identity in identities), missing)
