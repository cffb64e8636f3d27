"""One stage, many processes: the leader holds lock, attempts and outputs, the others its work directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitdistiller.distillation.world import World
from bitdistiller.stages import Stage, open_stage
from bitdistiller.stages.deadline import Deadline


@dataclass
class SharedStage:
    """What a process of a stage has: the state directory, its deadline, and the stage itself where it leads."""

    work: Path
    root: Path
    deadline: Deadline
    leader: Stage | None


@contextmanager
def open_shared_stage(world: World, name: str, *, time_budget: float | None, **stage: Any) -> Iterator[SharedStage]:
    """
    `open_stage` on the leader; the others wait until it is open and end with it when it cannot be.

    Every process listens to SIGTERM; whether to stop is for all to agree on.
    """
    if world.leads:
        with ExitStack() as stack:
            opened = world.lead(
                lambda: stack.enter_context(open_stage(name, time_budget=time_budget, **stage)), share=_places
            )
            yield SharedStage(opened.work, opened.root, opened.deadline, opened)
        return
    deadline = Deadline(time_budget)
    with deadline.listening():
        work, root = world.lead(lambda: None)
        yield SharedStage(work, root, deadline, None)


def _places(stage: Stage) -> tuple[Path, Path]:
    return stage.work, stage.root
