"""CAKLD's gamma of a run: measured once by all processes together, or given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bitdistiller.config import Training
from bitdistiller.distillation.batches import Batch
from bitdistiller.distillation.confidence import (
    Part,
    paper_gamma,
    paper_part,
    paper_positions,
    reference_gamma,
    reference_part,
    reference_positions,
)
from bitdistiller.distillation.losses import resolve
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.teacher import Teacher
from bitdistiller.distillation.world import World


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
    parts = []
    for batch in _batches(steps, chosen, world):
        keep = paper_positions(batch)
        parts.append(paper_part(teacher.signal(batch, keep), batch.targets[keep]))
    return {"gamma": paper_gamma([_over_all(parts, world)]), "samples": len(chosen)}


def _reference(training: Training, teacher: Teacher, steps: Steps, world: World) -> float:
    """A batch of the reference is `micro_batch_size` sequences in the order of the mix."""
    size = training.micro_batch_size
    starts = range(0, len(steps.training_samples), size)

    def part(start: int) -> Part:
        batches = _batches(steps, steps.training_samples[start : start + size], world)
        found = (reference_part(teacher.signal(batch, reference_positions(batch))) for batch in batches)
        return _over_all(list(found), world)

    return reference_gamma(map(part, starts), training.gamma_batches, training.gamma_reference_sum)


def _over_all(parts: list[Part], world: World) -> Part:
    """The sums of all processes."""
    total, count = world.sum(sum(total for total, _ in parts), sum(count for _, count in parts))
    return total, int(count)


def _batches(steps: Steps, samples: list[int], world: World) -> Iterator[Batch]:
    return (batch.to(world.device) for batch in steps.batches(samples, world.rank, world.size))
