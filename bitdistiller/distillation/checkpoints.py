"""Training checkpoints that a kill at any moment cannot spoil: the marker with every file's hash is written last."""

from __future__ import annotations

import logging
import math
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bitdistiller.errors import BitDistillerError, DiskFull
from bitdistiller.stages import disk
from bitdistiller.stages.digest import describe_files, hash_file
from bitdistiller.stages.files import read_json, sync_tree, write_json

logger = logging.getLogger(__name__)

MARKER = "COMPLETE.json"
STATE = "state.json"
NAME = re.compile(r"checkpoint-(\d+)")


def seal(checkpoint: Path) -> None:
    """Declare a written checkpoint complete: sync it, then write the marker."""
    sync_tree(checkpoint)
    write_json(checkpoint / MARKER, describe_files(checkpoint))


def is_whole(checkpoint: Path) -> bool:
    """True when the marker is there and every file is as it was when the checkpoint was sealed."""
    if not (checkpoint / MARKER).exists():
        return False
    return all(
        (checkpoint / name).is_file()
        and (checkpoint / name).stat().st_size == entry["bytes"]
        and hash_file(checkpoint / name) == entry["sha256"]
        for name, entry in read_json(checkpoint / MARKER).items()
    )


def steps(root: Path) -> dict[int, Path]:
    """Checkpoint directories below `root` by optimizer step, oldest first, whole or not."""
    found = ((NAME.fullmatch(path.name), path) for path in root.glob("checkpoint-*"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def newest_whole(root: Path, usable: Callable[[Path], bool] = lambda _: True) -> Path | None:
    """
    The newest complete checkpoint that is `usable`.

    Those that a kill cut short, that are damaged or of no use are removed with a warning.
    """
    for step, path in reversed(steps(root).items()):
        if not is_whole(path):
            logger.warning("checkpoint of step %d is incomplete or damaged; going back to the one before", step)
        elif not usable(path):
            logger.warning("checkpoint of step %d has no optimizer state to go on with; going back", step)
        else:
            return path
        shutil.rmtree(path)
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What the loop wrote beside weights and optimizer state."""
    return read_json(checkpoint / STATE)


def evaluation_losses(checkpoint: Path) -> dict[int, float]:
    """Evaluation loss by optimizer step, as far as `checkpoint` knows; those that are not finite are left out."""
    losses = {entry["step"]: entry.get("evaluation_loss") for entry in read_state(checkpoint)["history"]}
    return {step: loss for step, loss in losses.items() if loss is not None and math.isfinite(loss)}


def best_step(checkpoint: Path) -> int:
    """The step with the lowest evaluation loss (the first of equals); without evaluations the checkpoint's own."""
    losses = evaluation_losses(checkpoint)
    return min(losses, key=lambda step: (losses[step], step)) if losses else read_state(checkpoint)["step"]


def best_whole(root: Path, newest: Path) -> Path:
    """The checkpoint with the lowest evaluation loss known to `newest`, among those that are left and undamaged."""
    losses, found = evaluation_losses(newest), steps(root)
    for step in sorted(losses.keys() & found.keys(), key=lambda step: (losses[step], step)):
        if is_whole(found[step]):
            return found[step]
        logger.warning("checkpoint of step %d is damaged; taking the next best", step)
    return newest


def prune(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the best one; the newest must be sealed."""
    found = steps(root)
    newest = list(found)[-keep:]
    best = best_step(found[newest[-1]])
    for step, path in found.items():
        if step not in newest and step != best:
            shutil.rmtree(path)


def drop_optimizer(root: Path, patterns: Iterable[str]) -> None:
    """
    Remove from every checkpoint what only a resumed training needs, files and folders, once training is finished.

    Their hashes go first, so that a checkpoint is whole at any moment.
    """
    for checkpoint in steps(root).values():
        dropped = [path for pattern in patterns for path in checkpoint.glob(pattern)]
        prefixes = tuple(path.relative_to(checkpoint).as_posix() for path in dropped)
        sealed = read_json(checkpoint / MARKER)
        kept = {name: entry for name, entry in sealed.items() if not (prefixes and name.startswith(prefixes))}
        write_json(checkpoint / MARKER, kept)
        for path in dropped:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_disk_full(error: BaseException, root: Path) -> bool:
    """Whether writing failed for want of space; a library may not say so, but the disk does."""
    if isinstance(error, BitDistillerError):
        return False
    return disk.is_disk_full(error) or shutil.disk_usage(root).free < 1 << 20


def disk_full(checkpoint: Path) -> DiskFull:
    """Remove what was written of a checkpoint that did not become whole, and say what is left."""
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    if not (checkpoint / MARKER).exists():
        shutil.rmtree(checkpoint, ignore_errors=True)
    whole = [step for step, path in steps(checkpoint.parent).items() if (path / MARKER).exists()]
    kept = f"the checkpoint of step {max(whole)} is whole" if whole else "no checkpoint is lost"
    logger.warning("%s: %.1f MB were written before the disk was full", checkpoint, size / 1e6)
    return DiskFull(f"{checkpoint}: the disk is full; {kept}; make room, then run the same command to go on from there")
