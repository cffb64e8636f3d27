"""SLURM jobs that a main process left running when it was killed: who they are, and how their successors wait."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitdistiller.cluster.queue import SEPARATOR
from bitdistiller.cluster.slurm import ask

FIELDS = ("%A", "%T", "%u", "%k", "%Z")
MARK = "rule_"
"""Begins the comment of every job that the plugin submits."""


@dataclass(frozen=True)
class LeftJob:
    """A job of this working directory that waits or runs."""

    id: str
    state: str
    user: str
    comment: str
    """Rule and wildcards as the plugin writes them."""


def left_jobs(directory: Path) -> list[LeftJob]:
    """The jobs, of any user, that a main process submitted from `directory`; raises SlurmUnavailable."""
    return parse_left_jobs(ask(["squeue", "--noheader", f"--format={SEPARATOR.join(FIELDS)}"]), directory)


def parse_left_jobs(text: str, directory: Path) -> list[LeftJob]:
    """The jobs of one working directory among squeue's lines."""
    here = os.path.realpath(directory)
    lines = (line.split(SEPARATOR) for line in text.splitlines())
    whole = (fields for fields in lines if len(fields) == len(FIELDS))
    found = ((LeftJob(*fields[:-1]), fields[-1]) for fields in whole if fields[-2].startswith(MARK))
    return [job for job, place in found if os.path.realpath(place) == here]


def comment_of(job: Any) -> str:
    """The comment that the plugin gives a job of Snakemake's."""
    wildcards = "_".join(map(str, job.wildcards or ())).replace("/", "_")
    return f"{MARK}{job.name}_wildcards_{wildcards}" if wildcards else f"{MARK}{job.name}"


def hold_back(jobs: Iterable[Any], left: list[LeftJob]) -> list[LeftJob]:
    """
    Let each of Snakemake's `jobs` that is still in the queue, submitted by a former main process, start after that one.

    It then finds the finished state of the stage, or goes on with it. Returns the jobs that are waited for.
    """
    ids: dict[str, list[LeftJob]] = {}
    for one in left:
        ids.setdefault(one.comment, []).append(one)
    waited: list[LeftJob] = []
    for job in jobs:
        former = ids.get(comment_of(job), [])
        if former:
            _start_after(job, [one.id for one in former])
            waited += former
    return waited


def _start_after(job: Any, ids: list[str]) -> None:
    """Snakemake evaluates resources anew once, when a job becomes ready; that is done here, before they are changed."""
    job.reset_params_and_resources()
    extra = job.resources.get("slurm_extra") or ""
    job.resources.slurm_extra = f"{extra} --dependency=afterany:{':'.join(ids)}".strip()
