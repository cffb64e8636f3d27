"""CAKLD's gamma of a run: measured once by all processes together, or given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bitdistiller.config import Training
from bitdistiller.distillation.batches import Batch
from bitdistiller.distillation.confidence import label_part, paper_positions, top_part
from bitdistiller.distillation.losses import resolve
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.teacher import Teacher
from bitdistiller.distillation.world import World


def is_measured(training: Training) -> bool:
    """Whether the teacher has to be asked."""
    return isinstance(training.gamma, str) and any(loss.needs_gamma for loss, _ in resolve(training.loss))


@torch.no_grad()
def measure(training: Training, teacher: Teacher | None, steps: Steps, world: World) -> dict[str, Any]:
    """`gamma`, its definition, and over how many samples it was taken; the same on every process."""
    if not any(loss.needs_gamma for loss, _ in resolve(training.loss)):
        return {"gamma": 0.5, "definition": f"not used by the loss {training.loss}"}
    if not isinstance(training.gamma, str):
        return {"gamma": training.gamma, "definition": "fixed"}
    assert teacher is not None
    if training.gamma == "paper":
        return {**_paper(training, teacher, steps, world), "definition": "paper"}
    return {"gamma": _reference(training, teacher, steps, world), "definition": "reference"}


def _paper(training: Training, teacher: Teacher, steps: Steps, world: World) -> dict[str, Any]:
    chosen = steps.training_samples[: training.gamma_samples]
    total, count = 0.0, 0
    for batch in _moved(steps.batches(chosen, world.rank, world.size), world):
        keep = paper_positions(batch)
        part, number = label_part(teacher.signal(batch, keep), batch.input_ids.roll(-1, dims=1)[keep])
        total, count = total + part, count + number
    total, counted = world.sum(total, count)
    return {"gamma": total / max(counted, 1), "samples": len(chosen)}


def _reference(training: Training, teacher: Teacher, steps: Steps, world: World) -> float:
    """
    Mean over the first batches of the batch's mean largest probability, over all positions that hold a token.

    `gamma_reference_sum` restores the released code's slip: one batch more is summed than divided by.
    """
    size, wanted = training.micro_batch_size, training.gamma_batches + training.gamma_reference_sum
    chosen = steps.training_samples[: wanted * size]
    means = []
    for begin in range(0, len(chosen), size):
        total, count = 0.0, 0
        for batch in _moved(steps.batches(chosen[begin : begin + size], world.rank, world.size), world):
            part, number = top_part(teacher.signal(batch, batch.sequence >= 0))
            total, count = total + part, count + number
        total, counted = world.sum(total, count)
        means.append(total / counted)
    return sum(means) / (training.gamma_batches if len(means) > training.gamma_batches else len(means))


def _moved(batches: list[Batch], world: World) -> Iterator[Batch]:
    return (batch.to(world.device) for batch in batches)
