"""Whether jobs of lost nodes and preempted jobs come back, once."""

from __future__ import annotations

from collections.abc import Iterator

from bitdistiller.cluster.doctor.finding import Finding, error, ok
from bitdistiller.cluster.doctor.probe import Answer
from bitdistiller.cluster.doctor.situation import Situation


def check_requeue(situation: Situation) -> Iterator[Finding]:
    """The profile asks for it, and the cluster grants it."""
    if situation.facts is None:
        return
    default = situation.facts.number("JobRequeue")
    advice = "set slurm-requeue: true in the profile"
    if not situation.profile.requeue and default:
        yield error("requeue", "SLURM requeues jobs (JobRequeue=1) that Snakemake submits again: both run", advice)
    elif not situation.profile.requeue:
        yield error("requeue", "jobs do not come back (JobRequeue=0), and Snakemake waits for preempted ones", advice)
    elif refusing := [name for name, granted in _granted(situation).items() if granted is False]:
        seen = f"a job that asked for --requeue on {', '.join(refusing)} would not be requeued"
        yield error("requeue", seen, "ask what overrides it (job_submit plugin, cli_filter)")
    else:
        yield ok("requeue", f"jobs ask for it themselves; the cluster's default is JobRequeue={default}")


def _granted(situation: Situation) -> dict[str, bool | None]:
    return {answer.node: answer.requeue for answer in situation.probes.values() if isinstance(answer, Answer)}
