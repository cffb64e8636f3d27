"""Writing checkpoints from all processes, and reading the newest back."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bitdistiller.distillation import checkpoints
from bitdistiller.distillation.engines import Engine, engine_class
from bitdistiller.distillation.loop import Progressed
from bitdistiller.distillation.world import Elsewhere, World
from bitdistiller.errors import InputError
from bitdistiller.stages.files import write_json

logger = logging.getLogger(__name__)


class Saver:
    """
    Checkpoints of one run in `root`.

    Every process calls every method; the leader alone touches files that are not its share of the weights. `sealed`
    is called on the leader when a checkpoint has become durable.
    """

    def __init__(
        self, root: Path, keep: int, engine: Engine, world: World, gamma: dict[str, Any], sealed: Callable[[], None]
    ) -> None:
        self.root, self.keep, self.engine, self.world = root, keep, engine, world
        self.gamma, self.sealed = gamma, sealed

    def save(self, state: Progressed) -> None:
        """Write `checkpoint-<step>`, its marker last, then remove those no longer needed. Raises DiskFull."""
        checkpoint = self.root / f"checkpoint-{state.step}"
        try:
            self.world.lead(lambda: _fresh(checkpoint))
            self.world.together(lambda: self.engine.save(checkpoint))
            self.world.lead(lambda: self._seal(checkpoint, state))
        except Exception as error:
            if not isinstance(error, Elsewhere) and checkpoints.is_disk_full(error, self.root):
                raise checkpoints.disk_full(checkpoint) from error
            raise

    def _seal(self, checkpoint: Path, state: Progressed) -> None:
        record = {**asdict(state), "gamma": self.gamma, "engine": self.engine.name, "processes": self.world.size}
        write_json(checkpoint / checkpoints.STATE, record)
        checkpoints.seal(checkpoint)
        self.sealed()
        checkpoints.prune(self.root, self.keep)

    def resume(self, last: int) -> Progressed | None:
        """
        Load the newest whole checkpoint; None when there is none. Raises InputError for another engine or size.

        last: steps of the whole run. A finished run, which has dropped its optimizer state, has nothing left to load.
        """
        newest, record = self.world.lead(lambda: self._newest(last))
        if newest is None:
            return None
        if record["step"] < last:
            self.engine.load(newest)
        logger.info("going on after step %d", record["step"])
        return Progressed(record["step"], record["history"], record["divergence"])

    def _newest(self, last: int) -> tuple[Path | None, dict[str, Any]]:
        newest = checkpoints.newest_whole(self.root, partial(self._is_resumable, last))
        record = checkpoints.read_state(newest) if newest else {}
        if newest:
            self._check(newest, record)
        return newest, record

    def _is_resumable(self, last: int, checkpoint: Path) -> bool:
        record = checkpoints.read_state(checkpoint)
        patterns = engine_class(record["engine"]).optimizer_files
        return record["step"] == last or all(any(checkpoint.glob(pattern)) for pattern in patterns)

    def _check(self, newest: Path, record: dict[str, Any]) -> None:
        wrote, processes = record["engine"], record["processes"]
        ours = self.engine.name
        alike = {wrote, ours} <= {"single", "ddp"} or wrote == ours
        if not alike:
            raise InputError(
                f"{newest}: written by the engine {wrote}, which {ours} cannot read; set training.engine: {wrote}, or "
                f"delete {self.root} to start anew"
            )
        if processes != self.world.size and not self.engine.reshards:
            raise InputError(
                f"{newest}: written by {processes} processes of {wrote}, and this job has {self.world.size}; its "
                f"shards belong to their processes: start {processes} again, or delete {self.root} to start anew "
                "(engine: fsdp with optimizer: adamw can change the number)"
            )

    def load_best(self) -> int:
        """Bring the weights of the best checkpoint into the model; its step."""
        step, best = self.world.lead(self._best)
        self.engine.load_weights(best)
        return step

    def _best(self) -> tuple[int, Path]:
        last = checkpoints.newest_whole(self.root)
        assert last is not None
        best = checkpoints.best_whole(self.root, last)
        return checkpoints.read_state(best)["step"], best


def _fresh(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir()
