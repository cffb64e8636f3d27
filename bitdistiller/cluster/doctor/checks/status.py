"""Whether Snakemake would learn how its jobs are."""

from __future__ import annotations

from collections.abc import Iterator

from bitdistiller.cluster.doctor.finding import Finding, error, ok, skipped, warning
from bitdistiller.cluster.doctor.situation import Situation
from bitdistiller.cluster.polling import AGES_PER_POLL, GOOD_MIN_JOB_AGE, LONGEST_POLL, forgets_between_polls


def check_scheduler(situation: Situation) -> Iterator[Finding]:
    """The controller answers."""
    if situation.facts is None:
        yield skipped("scheduler", situation.facts_problem, "what needs the cluster was not checked")
    else:
        version = situation.facts.config.get("SLURM_VERSION", "?")
        name = situation.facts.config.get("ClusterName", "?")
        yield ok("scheduler", f"cluster {name}, SLURM {version}, {len(situation.facts.nodes)} nodes")


def check_status(situation: Situation) -> Iterator[Finding]:
    """The profile's status command works, and is the one that does not hang."""
    if situation.facts is None:
        return
    command = situation.profile.status_command
    problem = situation.clients.get(command, "")
    if problem:
        other = "squeue" if command == "sacct" else "sacct"
        yield error("status", f"{command}: {problem}", f"set slurm-status-command: {other} in the profile")
    elif command == "sacct":
        advice = "set slurm-status-command: squeue in the profile"
        yield warning("status", "sacct: cancelled jobs and an outage of accounting hang the workflow for ever", advice)
    else:
        yield ok("status", f"{command} answers")


def check_accounting(situation: Situation) -> Iterator[Finding]:
    """Accounting answers; nothing but history is lost without it."""
    problem = situation.clients.get("sacct", "")
    if situation.facts is None or situation.profile.status_command == "sacct":
        return
    if problem:
        advice = "none needed: the profile asks squeue; how finished jobs ended is known for MinJobAge only"
        yield warning("accounting", problem, advice)
    else:
        yield ok("accounting", "sacct answers")


def check_min_job_age(situation: Situation) -> Iterator[Finding]:
    """Finished jobs stay in squeue until the plugin has asked for them."""
    if situation.facts is None or situation.profile.status_command != "squeue":
        return
    age, first = situation.facts.number("MinJobAge"), situation.profile.init_seconds
    if age is None:
        yield skipped("min-job-age", "the cluster does not say its MinJobAge")
    elif age < AGES_PER_POLL * first:
        seen = f"MinJobAge {age} s is less than {AGES_PER_POLL} x {first} s: the plugin would fall back to sacct"
        mend = f"set slurm-init-seconds-before-status-checks: {age // AGES_PER_POLL} in the profile"
        advice = mend if age >= AGES_PER_POLL else f"ask for MinJobAge={GOOD_MIN_JOB_AGE} (slurm.conf)"
        yield error("min-job-age", seen, advice)
    elif forgets_between_polls(age):
        seen = f"MinJobAge {age} s, and polls up to {LONGEST_POLL} s apart: a job may be forgotten between two"
        yield warning("min-job-age", seen, f"ask for MinJobAge={GOOD_MIN_JOB_AGE} (slurm.conf)")
    else:
        yield ok("min-job-age", f"MinJobAge {age} s, first question after {first} s")
