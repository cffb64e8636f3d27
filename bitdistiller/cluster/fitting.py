"""What a profile may say on a cluster: partitions and GPUs that exist, a first poll, limits of growing requests."""

from __future__ import annotations

import re

from bitdistiller.cluster.polling import FIRST_POLL, GOOD_MIN_JOB_AGE, LONGEST_POLL, first_poll, forgets_between_polls
from bitdistiller.cluster.slurm import ClusterFacts, Gres
from bitdistiller.errors import InputError

GRES = re.compile(r"gpu(:(?!\d+$)[\w.]+)?")
"""What the plugin takes as a gres, less its number."""


def check(partition: str, gpu_partition: str, gpu_gres: str, facts: ClusterFacts | None) -> None:
    """Refuse what the cluster does not have; nothing is refused where nothing is known."""
    if gpu_gres and not GRES.fullmatch(gpu_gres):
        raise InputError(
            f"--gpu-gres {gpu_gres}: accepted: gpu or gpu:TYPE, without a number (the experiment gives it)"
        )
    if facts is None:
        return
    for option, name in (("--partition", partition), ("--gpu-partition", gpu_partition)):
        if name and name not in facts.partitions:
            raise InputError(f"{option} {name}: no such partition; accepted: {', '.join(facts.partitions)}")
    if gpu_gres:
        _check_gres(gpu_gres, gpu_partition or partition, facts)


def _check_gres(gpu_gres: str, partition: str, facts: ClusterFacts) -> None:
    default = facts.default_partition
    where = partition or (default.name if default else "")
    nodes = facts.nodes_of(where) if where else facts.nodes.values()
    there = [gres for node in nodes for gres in node.gres]
    name, _, kind = gpu_gres.partition(":")
    if not any(gres.name == name and kind in ("", gres.type) for gres in there):
        accepted = ", ".join(sorted({_name(gres) for gres in there})) or "none; choose another --gpu-partition"
        raise InputError(f"--gpu-gres {gpu_gres}: not on the nodes of partition {where}; accepted: {accepted}")


def _name(gres: Gres) -> str:
    return f"{gres.name}:{gres.type}" if gres.type else gres.name


def delay(facts: ClusterFacts | None) -> tuple[int, list[str]]:
    """Seconds to the first poll, and lines that say why; raises InputError where MinJobAge allows none."""
    age = facts.number("MinJobAge") if facts else None
    if age is None:
        return FIRST_POLL, []
    seconds = first_poll(age)
    said = [f"first status poll after {seconds} s: MinJobAge of this cluster is {age} s"]
    if forgets_between_polls(age):
        said.append(
            f"warning: polls are up to {LONGEST_POLL} s apart, so a job may end and be forgotten between two, and the "
            f"workflow would wait for it for ever; ask the administrator for `MinJobAge={GOOD_MIN_JOB_AGE}`"
        )
    return seconds, said


def limits(partition: str, gpu_partition: str, facts: ClusterFacts | None) -> dict[str, int]:
    """The longest walltime (minutes) and most memory (MB) that requests may grow to in all partitions that are used."""
    if facts is None:
        return {}
    default = facts.default_partition
    names = {partition or (default.name if default else ""), gpu_partition} - {""}
    times = [facts.partitions[name].max_time for name in names]
    memories = [max((node.memory_mb for node in facts.nodes_of(name)), default=0) for name in names]
    found = {
        "runtime_limit": min((int(time) for time in times if time is not None), default=0),
        "mem_limit_mb": min(memories, default=0),
    }
    return {key: value for key, value in found.items() if value}
