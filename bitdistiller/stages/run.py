"""The life of a stage, once for all of them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bitdistiller.errors import DeadlineReached, DiskFull, InputError
from bitdistiller.stages import provenance
from bitdistiller.stages.attempts import Attempts
from bitdistiller.stages.damage import DAMAGED
from bitdistiller.stages.deadline import Deadline
from bitdistiller.stages.digest import DIGEST, PROVENANCE, describe_files
from bitdistiller.stages.disk import told_when_full
from bitdistiller.stages.files import replace, temporary_name, write_json
from bitdistiller.stages.fingerprint import claim_state, describe
from bitdistiller.stages.lock import RunLock
from bitdistiller.stages.progress import Progress

logger = logging.getLogger(__name__)


class Stage:
    """One attempt at one stage; made by `open_stage`."""

    def __init__(self, output: Path, root: Path, fingerprint: dict[str, Any], deadline: Deadline) -> None:
        self.output = output
        self.root = root
        self.fingerprint = fingerprint
        self.deadline = deadline
        self.attempts = Attempts(root)
        self.work = claim_state(root, fingerprint)
        self.finished = False
        self._begin = time.monotonic()
        remove_leftovers(output)
        self._staging = temporary_name(output)

    def output_file(self, name: str) -> Path:
        """Where to write the declared file `name`; it gets its real name in `finish`."""
        self._staging.mkdir(parents=True, exist_ok=True)
        return self._staging / name

    def output_directory(self, name: str) -> Path:
        """Where to write the declared directory `name`; it gets its real name in `finish`."""
        path = self.output_file(name)
        path.mkdir()
        return path

    def commit(self) -> None:
        """Say that progress has just become durable in `work`; the progress gate counts these."""
        self.attempts.commit()

    def progress(self, label: str, total: int, done: int = 0, unit: str = "step") -> Progress:
        """A progress display of `total` units of which `done` were finished by earlier attempts."""
        return Progress(label, total, done, unit, self.root / "progress.json")

    def finish(
        self,
        counts: dict[str, Any] | None = None,
        details: dict[str, Any] | None = None,
        apart: Collection[str] = (),
    ) -> None:
        """
        Give every output its real name, then write `provenance.json` and, last, `digest.json`.

        counts go into the digest (content only), details (costs, rates) into the provenance. apart: outputs that say
        how something was made and not what it is; the digest leaves them out.
        """
        files = {name: file for name, file in describe_files(self._staging).items() if name not in apart}
        make_readable(self._staging)
        for old in (DIGEST, DAMAGED):
            (self.output / old).unlink(missing_ok=True)
        for path in sorted(self._staging.iterdir()):
            replace(path, self.output / path.name)
        self._staging.rmdir()
        self.attempts.end("finished")
        origin = provenance.describe(self.fingerprint, self.attempts.history(), time.monotonic() - self._begin)
        write_json(self.output / PROVENANCE, {**origin, "details": details or {}})
        write_json(self.output / DIGEST, {"files": files, "counts": counts or {}})
        self.finished = True

    def discard(self) -> None:
        """Remove half-written outputs."""
        shutil.rmtree(self._staging, ignore_errors=True)


def remove_leftovers(output: Path) -> None:
    """Remove what a killed attempt left beside and inside the output directory under temporary names."""
    for leftover in [*output.parent.glob(f".{output.name}.tmp-*"), *output.glob(".*.tmp-*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def make_readable(root: Path) -> None:
    """Give files and folders below `root` the modes the umask allows (safetensors writes 0600)."""
    umask = os.umask(0)
    os.umask(umask)
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def default_work(output: Path) -> Path:
    """Where a stage called by hand keeps its state: `work/...` for `results/...`, else beside the output."""
    parts = output.parts
    if "results" in parts:
        index = len(parts) - 1 - parts[::-1].index("results")
        return Path(*parts[:index], "work", *parts[index + 1 :])
    return output.with_name(f"{output.name}.work")


@contextlib.contextmanager
def open_stage(
    name: str,
    *,
    version: int,
    recipe: BaseModel | dict[str, Any],
    inputs: dict[str, Path],
    output: Path,
    work: Path | None = None,
    time_budget: float | None = None,
    lock_wait: float = 600.0,
) -> Iterator[Stage]:
    """
    Fingerprint, lock, attempts log, deadline, atomic outputs and provenance around a stage's own work.

    `inputs` are the files and directories the result depends on; `time_budget` is in minutes. Raises InputError for
    missing inputs, LockHeld, GateClosed, DeadlineReached and DiskFull as their docstrings say.
    """
    deadline = Deadline(time_budget)
    fingerprint = describe(name, version, recipe, inputs)
    root = Path(work) if work is not None else default_work(Path(output))
    lock = RunLock(root, wait=lock_wait)
    with told_when_full(root), deadline.listening():
        lock.acquire(deadline.check)
        try:
            stage = Stage(Path(output), root, fingerprint, deadline)
            number = stage.attempts.start()
            logger.info("%s: attempt %d, work in %s", name, number, root)
            with _recorded(stage), told_when_full(root):
                yield stage
        finally:
            lock.release()


@contextlib.contextmanager
def _recorded(stage: Stage) -> Iterator[None]:
    try:
        yield
        if not stage.finished:
            raise RuntimeError("the stage ended without finish()")
    except BaseException as error:
        stage.discard()
        if not stage.finished:
            with contextlib.suppress(OSError):  # on a full disk the first error is the one to tell
                stage.attempts.end(_outcome(error), error)
        raise


def _outcome(error: BaseException) -> str:
    if isinstance(error, DeadlineReached):
        return "deadline"
    if isinstance(error, InputError):
        return "input"
    if isinstance(error, DiskFull):
        return "disk"
    return "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "error"
