"""`bitdistiller unlock`: after a main process was killed, open its working directory and say what still runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitdistiller.cluster.guard import SNAKEMAKE_LOCKS, left_locks
from bitdistiller.cluster.left_jobs import LeftJob, left_jobs
from bitdistiller.cluster.main_process import MainProcess, describe
from bitdistiller.cluster.slurm import SlurmUnavailable, ask
from bitdistiller.errors import InputError
from bitdistiller.stages.lock import runs_here

AGAIN = "the same snakemake command goes on from here"


def unlock(results: Path, work: Path, cancel: bool = False) -> list[str]:
    """
    Remove the locks of a killed main process in this working directory; returns what to tell, one line each.

    cancel: whether jobs that it left are ended too: SLURM's by scancel, processes of this machine by SIGTERM, on which
    they save. Raises InputError, and changes nothing, while a main process lives or where none has ever run.
    """
    if not Path(".snakemake").is_dir():
        raise InputError(f"{Path().absolute()}: no .snakemake here; run this where snakemake was started")
    said = _open(results)
    jobs, clusterless = _left_jobs()
    processes = list(left_stages(work))
    if cancel:
        return [*said, *_cancel(jobs, processes), *clusterless, AGAIN]
    return [*said, *_tell(jobs, processes), *clusterless, AGAIN]


def _open(results: Path) -> list[str]:
    locks = left_locks()
    owner = MainProcess(results).forget_the_dead(lambda: shutil.rmtree(SNAKEMAKE_LOCKS, ignore_errors=True))
    if not owner and not locks:
        return ["nothing was locked"]
    return [f"unlocked; {describe(owner)} is dead" if owner else "unlocked; no main process lives"]


def _left_jobs() -> tuple[list[LeftJob], list[str]]:
    if shutil.which("squeue") is None:
        return [], []
    try:
        return left_jobs(Path()), []
    except SlurmUnavailable as error:
        return [], [f"whether jobs still run is not known: {error}"]


def left_stages(work: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Work directories, and owners, of stages that run on this machine and are no scheduler's jobs."""
    for path in sorted(work.rglob("lock.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            owner = json.loads(path.read_text())
            if not owner.get("job") and runs_here(owner):
                yield path.parent, owner


def _tell(jobs: list[LeftJob], processes: list[tuple[Path, dict[str, Any]]]) -> list[str]:
    said = [f"job {job.id} of {job.user} is still {job.state.lower()}: {job.comment}" for job in jobs]
    said += [f"process {owner['pid']} still runs: {work}" for work, owner in processes]
    if jobs:
        said.append("the same command lets them finish and starts each one's successor after it")
    if processes:
        said.append("stages of the same command wait for these processes, 10 minutes at most")
    return [*said, "`bitdistiller unlock --cancel-jobs` ends them instead"] if said else said


def _cancel(jobs: list[LeftJob], processes: list[tuple[Path, dict[str, Any]]]) -> list[str]:
    if jobs:
        ask(["scancel", *(job.id for job in jobs)])
    for _, owner in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(owner["pid"]), signal.SIGTERM)
    said = [f"job {job.id} cancelled: {job.comment}" for job in jobs]
    return said + [f"process {owner['pid']} asked to save and stop: {work}" for work, owner in processes]
