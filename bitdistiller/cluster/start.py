"""What the main process looks at before its first job goes to SLURM: what would hang later is refused now."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bitdistiller.cluster.left_jobs import hold_back, left_jobs
from bitdistiller.cluster.partition_file import listed_partitions
from bitdistiller.cluster.polling import AGES_PER_POLL
from bitdistiller.cluster.slurm import ClusterFacts, Partition, cluster_facts
from bitdistiller.errors import InputError

logger = logging.getLogger(__name__)

EXECUTOR = "slurm"
VARIABLE = "BITDISTILLER_SLURM"
"""`warn` starts on a cluster where jobs may hang the workflow."""


def prepare(workflow: Any) -> list[str]:
    """
    Check the cluster and hold back what already runs there; returns the lines to say, warnings among them.

    Does nothing for another executor than SLURM's. Raises InputError for a cluster on which a workflow would hang.
    """
    if workflow.executor_plugin.name != EXECUTOR:
        return []
    jobs = list(workflow.dag.needrun_jobs())
    settings = workflow.executor_settings
    facts = cluster_facts(nodes=False)
    partitions = partitions_of(jobs, facts, settings)
    said = _refuse_or_warn([*cancelling(partitions, facts), *forgetting(facts, settings)])
    left = left_jobs(Path())
    waited = hold_back(jobs, left) if left else []
    if waited:
        names = ", ".join(f"{job.id} ({job.comment}, {job.state.lower()})" for job in waited)
        said.append(
            f"bitdistiller: a former run left {len(waited)} of these jobs in the queue: {names}; each is submitted "
            "again now and starts when the former one has ended, with its work"
        )
    return said


def _refuse_or_warn(problems: list[str]) -> list[str]:
    if problems and os.environ.get(VARIABLE) != "warn":
        raise InputError(f"{problems[0]}; {VARIABLE}=warn starts all the same")
    return [f"bitdistiller: warning: {problem}" for problem in problems]


def partitions_of(jobs: Iterable[Any], facts: ClusterFacts, settings: Any) -> list[Partition]:
    """The partitions that Snakemake's jobs may go to, one job of each rule standing for all."""
    wanted: dict[str, None] = {}
    for job in {job.name: job for job in jobs if not job.is_local}.values():
        named = str(job.resources.get("slurm_partition") or "")
        wanted |= dict.fromkeys(named.split(",") if named else _chosen(facts, settings))
    return [facts.partitions[name] for name in wanted if name in facts.partitions]


def _chosen(facts: ClusterFacts, settings: Any) -> list[str]:
    """Where jobs without a partition of their own go: those of the partitions' file, else the cluster's default."""
    if settings.partition_config:
        return listed_partitions(Path(settings.partition_config))
    return [facts.default_partition.name] if facts.default_partition else []


def cancelling(partitions: Iterable[Partition], facts: ClusterFacts) -> Iterator[str]:
    """Partitions whose preempted jobs are cancelled: Snakemake waits for such a job for ever."""
    if facts.config.get("PreemptType", "preempt/none") in ("preempt/none", "(null)"):
        return
    for partition in partitions:
        if "CANCEL" in partition.preempt_mode.upper() and not _is_safe(partition, facts):
            yield (
                f"slurm_partition: {partition.name} cancels preempted jobs (PreemptMode=CANCEL), and Snakemake would "
                "wait for such a job for ever; accepted: partitions with PreemptMode REQUEUE or OFF"
            )


def _is_safe(partition: Partition, facts: ClusterFacts) -> bool:
    """Whether no other partition comes before this one, where partitions decide who preempts whom."""
    if facts.config.get("PreemptType") != "preempt/partition_prio":
        return False
    tiers = {name: int(one.record.get("PriorityTier", 1)) for name, one in facts.partitions.items()}
    return tiers[partition.name] >= max(tiers.values())


def forgetting(facts: ClusterFacts, settings: Any) -> Iterator[str]:
    """Ways to ask for the status of jobs that lose jobs."""
    age, first = facts.number("MinJobAge"), settings.init_seconds_before_status_checks
    if settings.status_command == "squeue" and age is not None and first and age < AGES_PER_POLL * first:
        yield (
            f"slurm-init-seconds-before-status-checks: {first} s is more than a third of the cluster's MinJobAge "
            f"({age} s), so the plugin would ask sacct and miss cancelled jobs; "
            f"accepted: at most {age // AGES_PER_POLL}"
        )
    elif settings.status_command == "sacct" and "none" in facts.config.get("AccountingStorageType", ""):
        yield "slurm-status-command: sacct knows no jobs on this cluster, which keeps no accounts; accepted: squeue"
