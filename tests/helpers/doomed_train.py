"""The stage `train` as a process that kills itself while it writes a checkpoint: STEP PART RECIPE MODEL MIX OUTPUT."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from bitdistiller.distillation.trainer import DistillationTrainer

from bitdistiller.config import TrainRecipe
from bitdistiller.distillation import checkpoints
from bitdistiller.distillation.stage import run
from bitdistiller.recipes import load_recipe


def die_writing(part: str, step: int) -> None:
    """At the checkpoint of `step`: `weights` dies between weights and optimizer state, `seal` before the marker."""
    seal, save = checkpoints.seal, DistillationTrainer._save_optimizer_and_scheduler

    def doomed_save(trainer: DistillationTrainer, folder: str) -> None:
        if part == "weights" and trainer.state.global_step == step:
            (Path(folder) / "optimizer.pt").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        save(trainer, folder)

    def doomed_seal(checkpoint: Path) -> None:
        if part == "seal" and checkpoint.name == f"checkpoint-{step}":
            os.kill(os.getpid(), signal.SIGKILL)
        seal(checkpoint)

    checkpoints.seal, DistillationTrainer._save_optimizer_and_scheduler = doomed_seal, doomed_save


if __name__ == "__main__":
    at, which, recipe, model, mix, output = sys.argv[1:]
    die_writing(which, int(at))
    run(
        load_recipe(TrainRecipe, recipe, []),
        model=Path(model),
        teacher=None,
        mix=Path(mix),
        clip=None,
        output=Path(output),
        work=None,
        time_budget=None,
    )
