"""What a profile may say on a cluster: partitions and GPUs that exist, a first poll, limits of growing requests."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from bitdistiller.cluster.polling import FIRST_POLL, GOOD_MIN_JOB_AGE, LONGEST_POLL, first_poll, forgets_between_polls
from bitdistiller.cluster.slurm import ClusterFacts, Gres
from bitdistiller.errors import InputError

GRES = re.compile(r"gpu(:(?!\d+$)[\w.]+)?")
"""What the plugin takes as a gres, less its number."""


def check_partitions(named: Mapping[str, Collection[str]], facts: ClusterFacts | None) -> None:
    """Refuse partitions, given by option, that the cluster does not have; nothing where nothing is known."""
    for option, names in named.items() if facts else ():
        for name in names:
            if name not in facts.partitions:
                raise InputError(f"{option} {name}: no such partition; accepted: {', '.join(facts.partitions)}")


def check_gres(gpu_gres: str, partitions: Collection[str], facts: ClusterFacts | None) -> None:
    """Refuse a GPU's name that SLURM would not take, or that no node of these partitions has."""
    if gpu_gres and not GRES.fullmatch(gpu_gres):
        accepted = "gpu or gpu:TYPE, without a number, which the experiment gives"
        raise InputError(f"--gpu-gres {gpu_gres}: accepted: {accepted}")
    if not gpu_gres or facts is None:
        return
    there = [gres for name in partitions for node in facts.nodes_of(name) for gres in node.gres]
    name, _, kind = gpu_gres.partition(":")
    if not any(gres.name == name and kind in ("", gres.type) for gres in there):
        accepted = ", ".join(sorted({_name(gres) for gres in there})) or "none; choose another --gpu-partition"
        where = ", ".join(partitions) or "(no default)"
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


def limits(partitions: Collection[str], facts: ClusterFacts | None, largest: bool) -> dict[str, int]:
    """
    The longest walltime (minutes) and most memory (MB) that requests may grow to and still fit these partitions: all of
    them or, with `largest`, one of them.
    """
    if facts is None or not partitions:
        return {}
    choose = max if largest else min
    times = [facts.partitions[name].max_time or math.inf for name in partitions]
    memories = [max((node.memory_mb for node in facts.nodes_of(name)), default=0) for name in partitions]
    found = {"runtime_limit": choose(times), "mem_limit_mb": choose(memories)}
    return {key: int(value) for key, value in found.items() if value and value < math.inf}
