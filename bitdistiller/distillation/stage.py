"""The stage `train`: clip, fake-quantise, distil; the best checkpoint's master weights are the result."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from bitdistiller.config import TrainRecipe
from bitdistiller.data.fetch import check_layout
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation import checkpoints, gamma
from bitdistiller.distillation.clock import Clock, time_quantiser
from bitdistiller.distillation.engines import choose, engine_class
from bitdistiller.distillation.inputs import Inputs, check_inputs
from bitdistiller.distillation.journal import Journal
from bitdistiller.distillation.loop import Loop, Objective
from bitdistiller.distillation.losses import resolve
from bitdistiller.distillation.packing import choose_layout
from bitdistiller.distillation.parameters import parameter_groups
from bitdistiller.distillation.saving import Saver
from bitdistiller.distillation.shared_stage import SharedStage, open_shared_stage
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.student import Student, load_student, write_student
from bitdistiller.distillation.teacher import open_teacher
from bitdistiller.distillation.world import World
from bitdistiller.stages import Stage, verify
from bitdistiller.stages.files import json_line

logger = logging.getLogger(__name__)

STUDENT = "student"
HISTORY = "history.jsonl"


def run(recipe: TrainRecipe, inputs: Inputs, *, output: Path, work: Path | None, time_budget: float | None) -> None:
    """Distil the teacher into the quantised student on the token file; every process of the run calls this."""
    name = recipe.training.engine
    world = World.join(group=name in ("fsdp", "zero2", "zero3"))
    try:
        engine = engine_class(choose(name, world.size))
        world.lead(lambda: check_inputs(recipe, inputs, engine.name, world))
        settings = {"version": 2, "recipe": recipe, "inputs": inputs.paths, "output": output, "work": work}
        with open_shared_stage(world, "train", time_budget=time_budget, **settings) as stage:
            world.lead(lambda: _verify(inputs))
            Training(recipe, inputs, stage, world, engine).run()
    finally:
        World.leave()


def _verify(inputs: Inputs) -> None:
    for path in inputs.paths.values():
        if path.is_dir() and (path / "digest.json").exists():
            verify(path)
