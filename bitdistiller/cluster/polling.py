"""When Snakemake's SLURM plugin asks for the status of its jobs, and how long SLURM must remember them for that."""

from __future__ import annotations

from bitdistiller.errors import InputError

FIRST_POLL = 30
"""Seconds to the first poll after a submission, where the cluster allows them."""
LONGEST_POLL = 180
"""Seconds between two polls after many without a finished job; the plugin cannot be told another limit."""
AGES_PER_POLL = 3
"""The plugin takes squeue only where MinJobAge is at least this many times the first poll, else silently sacct."""
GOOD_MIN_JOB_AGE = 300
"""SLURM's default MinJobAge in seconds."""


def first_poll(min_job_age: int) -> int:
    """Seconds to the first poll that this MinJobAge (seconds) allows; raises InputError where it allows none."""
    seconds = min(FIRST_POLL, min_job_age // AGES_PER_POLL)
    if seconds < 1:
        raise InputError(
            f"MinJobAge of this cluster is {min_job_age} s: it forgets jobs before their status can be asked for. "
            f"Ask its administrator for `MinJobAge={GOOD_MIN_JOB_AGE}` in slurm.conf, which is SLURM's default"
        )
    return seconds


def forgets_between_polls(min_job_age: int) -> bool:
    """Whether a job may end and be forgotten between two polls, for which a workflow would wait for ever."""
    return min_job_age <= LONGEST_POLL
