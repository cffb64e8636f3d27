"""The stage `export`: master weights in, a packed checkpoint that has been read back and compared out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bitdistiller.calibration.ranges import clip_file
from bitdistiller.config import ExportRecipe
from bitdistiller.export.checkpoint import write_checkpoint
from bitdistiller.export.chosen import open_masters
from bitdistiller.export.files import ShardWriter
from bitdistiller.export.layout import Layout
from bitdistiller.export.masters import Masters
from bitdistiller.export.registry import get_layout
from bitdistiller.export.sizes import measure
from bitdistiller.export.verify import verify_checkpoint
from bitdistiller.stages import Stage, open_stage
from bitdistiller.stages.files import write_json
from bitdistiller.stages.unavailable import mark_unavailable, why_unavailable

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint"
REPORT = "export.json"


def run(
    recipe: ExportRecipe,
    *,
    weights: Path,
    clip: Path | None,
    output: Path,
    work: Path | None,
    time_budget: float | None,
    verify: bool = True,
) -> None:
    """
    Pack `weights`, a base model (with `clip` applied first, if given), a `student/` directory or what the stage
    `baseline` wrote, into `checkpoint/`; the reason why there are no such weights goes there in their place.

    `verify` also loads the result in a fresh process; every layer is compared in this one in any case. A killed run
    goes on after the last finished shard. Raises InputError when weights, clip ranges and recipe do not fit.
    """
    reason = why_unavailable(weights)
    masters = None if reason else open_masters(weights, recipe.quantization, clip)
    inputs = {"weights": Path(weights)} | ({"clip": clip_file(clip)} if clip else {})
    with open_stage(
        "export", version=1, recipe=recipe, inputs=inputs, output=output, work=work, time_budget=time_budget
    ) as stage:
        checkpoint = stage.output_directory(CHECKPOINT)
        if masters is None:
            _pass_on(stage, recipe, checkpoint, str(reason))
            return
        writer, layout = ShardWriter(stage.work), get_layout(recipe)
        _write(stage, masters, layout, checkpoint, writer)
        report = {
            **recipe.model_dump(mode="json"),
            "weights": masters.origin,
            **measure(masters, layout, checkpoint),
            "verified": verify_checkpoint(checkpoint, weights, clip, recipe, fresh_process=verify),
        }
        write_json(stage.output_file(REPORT), report)
        _log(output, report)
        stage.finish(counts={key: report[key] for key in ("quantised_weights", "bits_per_weight", "file_bytes")})
        writer.clear()


def _pass_on(stage: Stage, recipe: ExportRecipe, checkpoint: Path, reason: str) -> None:
    mark_unavailable(checkpoint, reason)
    report = recipe.model_dump(mode="json") | {"weights": None, "bits_per_weight": None, "reason": reason}
    write_json(stage.output_file(REPORT), report)
    stage.finish()


def _write(stage: Stage, masters: Masters, layout: Layout, checkpoint: Path, writer: ShardWriter) -> None:
    total = len(masters.layers) + len(masters.others)
    with stage.progress("export", total, unit="tensor") as bar:

        def done(durable: bool) -> None:
            bar.advance(1)
            if durable:
                stage.commit()
            stage.deadline.check()

        write_checkpoint(masters, layout, checkpoint, writer, done)


def _log(output: Path, report: dict[str, Any]) -> None:
    logger.info(
        "%s: %s at %.3f bits a weight (least possible %.3f), %.1f MB (least possible %.1f MB)",
        output / CHECKPOINT,
        report["quantization"]["format"],
        report["bits_per_weight"],
        report["minimum_bits_per_weight"],
        report["file_bytes"] / 1e6,
        report["minimum_bytes"] / 1e6,
    )
