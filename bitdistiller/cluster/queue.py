"""The user's own jobs as SLURM's queue has them, under the names of rules instead of the plugin's run ids."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bitdistiller.cluster.slurm import ask
from bitdistiller.stages.lock import user_name

PREFIX = "bitdistiller_"
"""Begins the job names of a run; `slurm-jobname-prefix` of the profile."""
FIELDS = ("%i", "%T", "%M", "%N", "%r", "%j", "%k")
SEPARATOR = "|"
COMMENT = re.compile(r"(?:rule|group)_(?P<rule>.*?)(?:_wildcards_(?P<wildcards>.*))?")


@dataclass(frozen=True)
class QueuedJob:
    """One line of squeue; texts as SLURM writes them."""

    id: str
    state: str
    elapsed: str
    node: str
    reason: str
    """Why it waits; `None` where it does not."""
    rule: str
    wildcards: str
    """Values of the wildcards, joined by `_`."""


def jobs() -> list[QueuedJob]:
    """Jobs of this user's workflows that wait or run; raises SlurmUnavailable where squeue cannot be asked."""
    command = ["squeue", "--noheader", f"--user={user_name()}", f"--format={SEPARATOR.join(FIELDS)}"]
    return parse_jobs(ask(command))


def parse_jobs(text: str) -> list[QueuedJob]:
    """The jobs among squeue's lines that the plugin submitted for a workflow with our profile."""
    lines = (line.split(SEPARATOR, len(FIELDS) - 1) for line in text.splitlines())
    return [_job(fields) for fields in lines if len(fields) == len(FIELDS) and fields[-2].startswith(PREFIX)]


def _job(fields: list[str]) -> QueuedJob:
    id, state, elapsed, node, reason, _, comment = fields
    found = COMMENT.fullmatch(comment.strip())
    rule, wildcards = (found["rule"], found["wildcards"] or "") if found else ("", comment.strip())
    return QueuedJob(id, state, elapsed, node, reason, rule, wildcards)
