"""The stage `warm-start`: block after block, each finished one durable."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from bitdistiller.calibration import ActivationWalk, load_clip
from bitdistiller.calibration.collect import device
from bitdistiller.calibration.ranges import save_tensors
from bitdistiller.calibration.weights import open_weights
from bitdistiller.config import WarmStartRecipe
from bitdistiller.data.fetch import check_layout
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation.warm_start.files import START, block_file, publish, state_of
from bitdistiller.distillation.warm_start.reconstruction import Block, quantised_block, run_block, train_block
from bitdistiller.distillation.warm_start.rows import training_rows
from bitdistiller.stages import Stage, open_stage, verify
from bitdistiller.stages.files import read_json, write_json
from bitdistiller.stages.progress import Progress

logger = logging.getLogger(__name__)

BLOCKS = "blocks.json"


def run(
    recipe: WarmStartRecipe,
    *,
    model: Path,
    tokens: Path,
    clip: Path | None,
    output: Path,
    work: Path | None,
    time_budget: float | None,
) -> None:
    """
    Reconstruct the quantised blocks of `model` on the training part of a token file; goes on after the last block.

    A block's targets are the full-precision outputs on full-precision inputs; its own inputs are the outputs of the
    quantised blocks before it. Only one block is on the device; both streams of activations are on the host.
    """
    check_layout(model)
    file = TokenFile(tokens)
    inputs = {"model": model, "tokens": tokens} | ({"clip": clip} if clip else {})
    with open_stage(
        "warm-start", version=1, recipe=recipe, inputs=inputs, output=output, work=work, time_budget=time_budget
    ) as stage:
        for finished in (tokens, clip):
            if finished is not None and finished.is_dir():
                verify(finished)
        context = AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings
        rows = training_rows(file, recipe, context)
        walk = ActivationWalk(open_weights(model), rows, device(), recipe.warm_start.batch_size)
        ranges = load_clip(clip) if clip else {}
        names = Reconstruction(recipe, stage, walk, ranges).all_blocks()
        publish(stage.work, stage.output_directory(START), names)
        _finish(stage, recipe, rows, len(names))


@dataclass
class Reconstruction:
    """The walk through the blocks with the stream of the quantised ones beside it."""

    recipe: WarmStartRecipe
    stage: Stage
    walk: ActivationWalk
    ranges: dict[str, Tensor]
    hidden: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = list(self.walk.hidden)

    def all_blocks(self) -> list[list[str]]:
        """Reconstruct what is left; the names of every block's tensors."""
        total = len(self.walk.blocks)
        steps = self.recipe.warm_start.epochs * len(self.hidden)
        done = next((n for n in range(total) if not block_file(self.stage.work, n).exists()), total)
        if done == total:
            return [sorted(load_file(block_file(self.stage.work, index))) for index in range(total)]
        with self.stage.progress("warm start", total * steps, done * steps) as bar:
            return [self._block(index, index < done, bar) for index in range(total)]

    def _block(self, index: int, finished: bool, bar: Progress) -> list[str]:
        self.stage.deadline.check()
        block = quantised_block(self.walk, index, self.recipe, self.ranges)
        self.walk.step()
        path = block_file(self.stage.work, index)
        if finished:
            _restore(block, load_file(path))
            run_block(block, self.hidden, replace=True)
        else:
            report = self._train(block, bar)
            write_json(path.with_suffix(".json"), report)
            save_tensors(path, state_of(block.module, f"{self.walk.name}.{index}"))
            self.stage.commit()
        return sorted(state_of(block.module, f"{self.walk.name}.{index}"))

    def _train(self, block: Block, bar: Progress) -> dict[str, Any]:
        targets = self.walk.hidden
        before = run_block(block, self.hidden, targets)

        def stepped() -> None:
            bar.advance(1, f"block {block.index}")
            self.stage.deadline.check()

        train_block(block, self.hidden, targets, self.recipe, stepped)
        after = run_block(block, self.hidden, targets, replace=True)
        name = f"{self.walk.name}.{block.index}"
        logger.info("%s: relative error %.4f -> %.4f", name, before, after)
        return {"block": name, "error_before": before, "error_after": after}


@torch.no_grad()
def _restore(block: Block, tensors: dict[str, Tensor]) -> None:
    prefix = f"{block.walk.name}.{block.index}."
    for name, parameter in block.module.named_parameters():
        parameter.copy_(tensors[f"{prefix}{name}"])


def _finish(stage: Stage, recipe: WarmStartRecipe, rows: Tensor, blocks: int) -> None:
    """Write the report: relative squared error of every block's outputs before and after, and what it took."""
    options = recipe.warm_start
    steps = options.epochs * (len(rows) // options.batch_size)
    report = {
        "sequences": len(rows),
        "length": rows.shape[1],
        "steps_per_block": steps,
        "tokens_per_block": options.epochs * rows.numel(),
        "blocks": [read_json(block_file(stage.work, index).with_suffix(".json")) for index in range(blocks)],
    }
    write_json(stage.output_file(BLOCKS), report)
    counts = {key: report[key] for key in ("sequences", "length", "steps_per_block", "tokens_per_block")}
    stage.finish(counts=counts | {"blocks": blocks, "train_scales": recipe.train_scales})
