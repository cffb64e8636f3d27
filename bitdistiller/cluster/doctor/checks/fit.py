"""Whether the jobs of the experiment fit the partitions they go to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bitdistiller.cluster.doctor.demand import Demand, gpus_of
from bitdistiller.cluster.doctor.finding import Finding, error, ok, warning
from bitdistiller.cluster.doctor.situation import Situation
from bitdistiller.cluster.slurm import Node


def check_walltime(situation: Situation) -> Iterator[Finding]:
    """No job asks for more than its partition's MaxTime, also after several attempts."""
    bad: list[Finding] = []
    for demand, limit in _with_limits(situation):
        where = f"partition {demand.partition} allows {limit:g}"
        if demand.runtime > limit:
            advice = f"set resources.{demand.stage}.runtime to {int(limit)} or less: stages go on in the next attempt"
            bad.append(error("walltime", f"{demand.stage} asks for {demand.runtime} minutes, {where}", advice))
        elif demand.grown_runtime > limit:
            seen = f"{demand.stage} asks for up to {demand.grown_runtime} minutes at later attempts, {where}"
            bad.append(warning("walltime", seen, f"set runtime_limit: {int(limit)} in the profile's default-resources"))
    yield from bad
    if not bad and situation.partitions:
        yield ok("walltime", f"at most {max(demand.runtime for demand in situation.demands)} minutes")


def _with_limits(situation: Situation) -> Iterator[tuple[Demand, float]]:
    for demand in situation.demands:
        partition = situation.partitions.get(demand.partition or "")
        if partition is not None and partition.max_time is not None:
            yield demand, partition.max_time


def check_memory(situation: Situation) -> Iterator[Finding]:
    """Some node of the partition has the memory."""
    yield from _each(situation, "memory", "mem_mb", "MB", lambda demand: demand.mem_mb, lambda node, _: node.memory_mb)


def check_cpus(situation: Situation) -> Iterator[Finding]:
    """Some node of the partition has the cores."""
    yield from _each(situation, "cpus", "threads", "cores", lambda demand: demand.threads, lambda node, _: node.cpus)


def _each(
    situation: Situation,
    name: str,
    key: str,
    unit: str,
    wanted: Callable[[Demand], int],
    offered: Callable[[Node, Demand], int],
) -> Iterator[Finding]:
    bad = []
    for demand, nodes in _with_nodes(situation):
        most = max((offered(node, demand) for node in nodes), default=0)
        if wanted(demand) > most:
            seen = f"{demand.stage} asks for {wanted(demand)} {unit}, nodes of {demand.partition} have {most}"
            bad.append(error(name, seen, f"lower resources.{demand.stage}.{key}, or choose another partition"))
    yield from bad
    if not bad and situation.partitions:
        yield ok(name, f"at most {max(wanted(demand) for demand in situation.demands)} {unit}")


def _with_nodes(situation: Situation) -> Iterator[tuple[Demand, list[Node]]]:
    for demand in situation.demands:
        if situation.facts is not None and demand.partition in situation.partitions:
            yield demand, situation.facts.nodes_of(demand.partition)


def check_gpus(situation: Situation) -> Iterator[Finding]:
    """Some node of the partition has the GPUs, under the name the profile gives them, and the rest of the job too."""
    bad, most = [], 0
    for demand, nodes in _with_nodes(situation):
        most = max(most, demand.gpus)
        if not demand.gpus:
            continue
        count = max((gpus_of(node, demand.gpu_type) for node in nodes), default=0)
        if count < demand.gpus:
            bad.append(_too_few(situation, demand, nodes, count))
        elif _fits_apart(demand, nodes) and not any(demand.fits(node) for node in nodes):
            seen = f"{demand.stage}: no single node of {demand.partition} has its GPUs, memory and cores together"
            bad.append(error("gpus", seen, f"lower resources.{demand.stage}, or choose another partition"))
    yield from bad
    if not bad and situation.partitions:
        yield ok("gpus", f"at most {most} in a job" if most else "no stage asks for any")


def check_several_nodes(situation: Situation) -> Iterator[Finding]:
    """A training across nodes finds as many in its partition."""
    for demand, nodes in _with_nodes(situation):
        count = sum(map(demand.fits, nodes))
        if demand.nodes == 1:
            continue
        if count < demand.nodes:
            seen = f"{demand.stage} asks for {demand.nodes} nodes, {count} of {demand.partition} fit it"
            yield error("several-nodes", seen, "lower `nodes` of the run, or choose another partition")
        else:
            yield ok("several-nodes", f"{demand.stage} asks for {demand.nodes} of {count} that fit it")


def _fits_apart(demand: Demand, nodes: list[Node]) -> bool:
    """Whether memory and cores are there at all; their own checks say so otherwise."""
    most = max(node.memory_mb for node in nodes), max(node.cpus for node in nodes)
    return demand.mem_mb <= most[0] and demand.threads <= most[1]


def _too_few(situation: Situation, demand: Demand, nodes: list[Node], count: int) -> Finding:
    kind = f"gpu:{demand.gpu_type}" if demand.gpu_type else "gpu"
    named = {f"gpu:{gres.type}".rstrip(":") for node in nodes for gres in node.gres if gres.name == "gpu"}
    seen = f"{demand.stage} asks for {demand.gpus} of {kind}, nodes of {demand.partition} have {count}"
    if named and not count:
        return error("gpus", seen, f"set gpu_gres in the profile to one of: {', '.join(sorted(named))}")
    facts = situation.facts
    having = [name for name in (facts.partitions if facts else {}) if facts and any(map(gpus_of, facts.nodes_of(name)))]
    advice = f"partitions with GPUs: {', '.join(having)}" if having else "no node of this cluster has GPUs"
    return error("gpus", seen, f"set gpu_partition in the profile, or resources.{demand.stage}.gpu; {advice}")
