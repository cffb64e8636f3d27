"""What an experiment cost: hours, tokens, memory and disk of every finished output, from its provenance."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bitdistiller.plan import Plan
from bitdistiller.reporting.markdown import pipe_table
from bitdistiller.stages import DIGEST, PROVENANCE
from bitdistiller.stages.files import read_json

logger = logging.getLogger(__name__)

COLUMNS = {
    "model": "str",
    "run": "str",
    "stage": "str",
    "part": "str",
    "finished": "bool",
    "device": "str",
    "gpus": "Int64",
    "hours": "Float64",
    "gpu_hours": "Float64",
    "tokens": "Int64",
    "host_bytes": "Int64",
    "gpu_bytes": "Int64",
    "disk_bytes": "Int64",
    "attempts": "Int64",
    "unknown_attempts": "Int64",
}
"""
Columns and types: one row per output of a stage; `run` is empty for an output that runs share. `hours` are wall hours
of all attempts whose end was recorded, `unknown_attempts` counts the others (killed without a word). `host_bytes` and
`gpu_bytes` are peaks of one process.
"""
TOKENS = {
    "clip": ("counts", "tokens"),
    "generate": ("counts", "completion_tokens"),
    "mix": ("counts", "tokens"),
    "tokenize": ("counts", "tokens"),
    "train": ("details", "tokens"),
}
"""Where a stage records the tokens it worked on, or wrote."""
TRAINING = ("baseline", "warm-start", "train")
HEADINGS = ("Stage", "Finished", "Hours", "GPU-hours", "Tokens", "Host peak", "GPU peak", "Disk", "Attempts")
NOTE = (
    "Hours: wall time of all attempts, summed over the jobs of a stage; peaks: the largest of one process; "
    "disk: what the stage's results take. Outputs that runs share are counted once."
)


@dataclass(frozen=True)
class Output:
    """An output directory of a stage; `run` is empty where runs share it."""

    stage: str
    directory: Path
    model: str
    run: str = ""
    part: str = ""


def outputs(plan: Plan) -> Iterator[Output]:
    """Every output of an experiment but the tables, once, in the order of the method."""
    experiment = plan.experiment
    for name, model in experiment.models.items():
        yield Output("pretrain-demo" if model.demo is not None else "fetch", plan.base(name), name)
    for (model, name), run in plan.grams.items():
        yield from (Output("gram", path, model, part=f"{name}/{path.name}") for path in plan.gram_shards(run))
    for (model, name), run in plan.clips.items():
        yield Output("clip", plan.clip(run), model, part=name)
    for name, mix in experiment.mixes.items():
        shards = (plan.shard(name, shard) for shard in range(mix.shards))
        yield from (Output("generate", path, mix.teacher, part=f"{name}/{path.name}") for path in shards)
        yield Output("mix", plan.mix(name), mix.teacher, part=name)
    for (model, mix_name, name), run in plan.token_files.items():
        yield Output("tokenize", plan.tokens(run), model, part=f"{mix_name}/{name}")
    for (model, mix_name, name), run in plan.caches.items():
        paths = plan.cache_shards(run)
        yield from (Output("cache-teacher", p, model, part=f"{mix_name}/{name}/{p.name}") for p in paths)
    for name, run in experiment.runs.items():
        yield from (Output(stage, path, run.model, name, part) for stage, path, part in _of_run(plan, name))


def _of_run(plan: Plan, run: str) -> Iterator[tuple[str, Path, str]]:
    method = plan.method(run)
    if method.baseline:
        yield "baseline", plan.baseline(run), ""
    if method.train:
        yield from (("warm-start", path, "") for path in plan.warm_start(run))
        yield "train", plan.train(run), ""
    if method.quantised:
        yield "export", plan.export(run), ""
        yield from (("convert", plan.conversion(run, layout), layout) for layout in plan.run(run).layouts)
    for name in plan.experiment.evaluations_of(run):
        shards = map(Path, plan.evaluation_shards(run, name))
        yield from (("evaluate-shard", path, f"{name}/{path.name}") for path in shards)
        yield "evaluate", plan.evaluation(run, name), name


def cost_frame(plan: Plan) -> pd.DataFrame:
    """One row per output that the experiment of `plan` has, finished or not, columns as in `COLUMNS`."""
    rows = [_row(output) for output in outputs(plan)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def training_hours(frame: pd.DataFrame) -> dict[str, float]:
    """
    Wall hours of the jobs that train or calibrate the weights of every run: baseline, warm-start, train.

    Stages that runs share (data, clip searches) are in no run's hours. Runs that have such jobs unfinished, or with
    attempts whose end is unknown, are left out.
    """
    jobs = frame[frame["stage"].isin(TRAINING) & (frame["run"] != "")]
    known = jobs["finished"] & (jobs["unknown_attempts"].fillna(0) == 0)
    whole = known.groupby(jobs["run"], sort=False).all()
    hours = jobs.groupby("run", sort=False)["hours"].sum()
    return {str(run): float(hours[run]) for run in whole.index[whole]}


def _row(output: Output) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"model": output.model, "run": output.run, "stage": output.stage, "part": output.part, "device": ""}
    try:
        provenance, digest = read_json(output.directory / PROVENANCE), read_json(output.directory / DIGEST)
        return row | {"finished": True} | _measured(output, provenance, digest)
    except FileNotFoundError:
        return row | {"finished": False}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s: cost cannot be read (%s)", output.directory, error)
        return row | {"finished": False}


def _measured(output: Output, provenance: dict[str, Any], digest: dict[str, Any]) -> dict[str, Any]:
    attempts, peak = provenance["attempts"], provenance["peak_memory"]
    known = [attempt["ended"] - attempt["time"] for attempt in attempts if "ended" in attempt]
    hours, gpus = sum(known) / 3600, _gpus(provenance)
    where, key = TOKENS.get(output.stage, ("", ""))
    places = {"counts": digest["counts"], "details": provenance.get("details") or {}}
    return {
        "device": provenance["device"],
        "gpus": gpus,
        "hours": hours,
        "gpu_hours": hours * gpus,
        "tokens": places.get(where, {}).get(key),
        "host_bytes": peak.get("host_bytes"),
        "gpu_bytes": peak.get("device_bytes"),
        "disk_bytes": sum(file["bytes"] for file in digest["files"].values()),
        "attempts": len(attempts),
        "unknown_attempts": len(attempts) - len(known),
    }


def _gpus(provenance: dict[str, Any]) -> int:
    """GPUs in use: `4x NVIDIA ...`, times the processes where each saw only its own."""
    match = re.match(r"(\d+)x ", provenance["device"])
    return max(int(match.group(1)), (provenance.get("details") or {}).get("processes", 1)) if match else 0


def summary(frame: pd.DataFrame) -> list[list[str]]:
    """A row per stage and a total, each as many texts as `HEADINGS`."""
    return [*(_line(stage, group) for stage, group in frame.groupby("stage", sort=False)), _line("total", frame)]


def render_markdown(frame: pd.DataFrame) -> str:
    """`summary` as Markdown, with a final newline."""
    table = pipe_table([HEADINGS, *summary(frame)], [name != "Stage" for name in HEADINGS])
    unknown = int(frame["unknown_attempts"].fillna(0).sum())
    notes = [NOTE]
    notes += [f"{unknown} attempts were killed without a record of their end and are not in the hours."] * (unknown > 0)
    return "\n\n".join(["### Cost", table, *notes]) + "\n"


def _line(stage: str, group: pd.DataFrame) -> list[str]:
    done = group[group["finished"]]
    tokens = "" if stage == "total" or done["tokens"].isna().all() else f"{int(done['tokens'].sum()):,}"
    peaks = [_size(done[name].max()) for name in ("host_bytes", "gpu_bytes")]
    hours = [f"{done[name].sum():.3f}" for name in ("hours", "gpu_hours")]
    attempts = str(int(done["attempts"].sum()))
    return [stage, f"{len(done)}/{len(group)}", *hours, tokens, *peaks, _size(done["disk_bytes"].sum()), attempts]


def _size(size: Any) -> str:
    if pd.isna(size) or not size:
        return ""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
