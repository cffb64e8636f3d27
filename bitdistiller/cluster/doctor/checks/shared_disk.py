"""The disk that login and compute nodes share."""

from __future__ import annotations

from collections.abc import Iterator

from bitdistiller.cluster.doctor.checks.nodes import answers
from bitdistiller.cluster.doctor.finding import Finding, error, ok, warning
from bitdistiller.cluster.doctor.situation import Situation


def check_shared_disk(situation: Situation) -> Iterator[Finding]:
    """What one side writes or renames the other sees, sooner than Snakemake gives up."""
    patience = situation.profile.latency_wait
    for target, answer in answers(situation):
        seen = f"{target.name}: a file and its answer took {answer.round_trip:.2f} s"
        if answer.round_trip > patience:
            advice = f"set latency-wait: {int(3 * answer.round_trip) + 1} in the profile"
            yield error("shared-disk", f"{seen}, more than latency-wait ({patience:g} s)", advice)
        else:
            yield ok("shared-disk", seen)


def check_locks(situation: Situation) -> Iterator[Finding]:
    """A lock that is held here is held there."""
    for target, answer in answers(situation):
        if answer.lock == "exclusive":
            yield ok("locks", f"{target.name}: locks hold between nodes")
        elif answer.lock == "shared":
            seen = f"{target.name}: a lock of this node does not hold there"
            advice = "mount with cluster-wide locks (Lustre: flock, NFS: not nolock): two attempts may start at once"
            yield warning("locks", seen, advice)
        else:
            yield error("locks", f"{target.name}: {answer.lock}", "stages need flock: use another disk for work/")
