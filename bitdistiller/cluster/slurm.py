"""What SLURM's own clients say about a cluster, as typed facts; nothing here submits anything."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bitdistiller.cluster.slurm_text import KIBI, parse_config, parse_minutes, parse_record, parse_tres
from bitdistiller.errors import InputError

TIMEOUT = 30.0


class SlurmUnavailable(InputError):
    """A client of SLURM is not installed here, does not answer in time or reports an error; one line says which."""


@dataclass(frozen=True)
class Gres:
    """One kind of generic resource on a node, `gpu:a100:4`; `type` is empty where the cluster names none."""

    name: str
    type: str
    count: int


@dataclass(frozen=True)
class Partition:
    """A line of `scontrol show partition`; `record` has every field of it as text."""

    name: str
    nodes: str
    """Its nodes as SLURM's host list, `c[1-2],g1`."""
    max_time: float | None
    """Longest walltime in minutes; None without a limit."""
    preempt_mode: str
    default: bool
    tres: Mapping[str, str]
    """Its trackable resources, `{"cpu": "8", "mem": "16000M", "gres/gpu": "2"}`."""
    record: Mapping[str, str] = field(repr=False, hash=False)


@dataclass(frozen=True)
class Node:
    """A line of `scontrol show node`; `record` has every field of it as text."""

    name: str
    cpus: int
    memory_mb: int
    gres: tuple[Gres, ...]
    state: str
    """As SLURM writes it, flags included: `IDLE`, `DOWN*`, `MIXED+DRAIN`."""
    partitions: tuple[str, ...]
    record: Mapping[str, str] = field(repr=False, hash=False)


@dataclass(frozen=True)
class ClusterFacts:
    """What a cluster's controller says about it."""

    config: Mapping[str, str]
    """`scontrol show config`, every value as text."""
    partitions: Mapping[str, Partition]
    nodes: Mapping[str, Node]

    def number(self, key: str) -> int | None:
        """The number a configuration value begins with (`300 sec` is 300); None where there is none."""
        found = re.match(r"-?\d+", self.config.get(key, ""))
        return int(found.group()) if found else None

    @property
    def default_partition(self) -> Partition | None:
        """The partition of a job that asks for none."""
        return next((partition for partition in self.partitions.values() if partition.default), None)

    def nodes_of(self, partition: str) -> list[Node]:
        """The nodes of one partition."""
        return [node for node in self.nodes.values() if partition in node.partitions]


def ask(command: Sequence[str], timeout: float = TIMEOUT) -> str:
    """Standard output of a SLURM client; raises SlurmUnavailable with one line that says what was wrong."""
    name = " ".join(command)
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise SlurmUnavailable(f"{command[0]}: not installed here; run this where SLURM's clients are") from None
    except subprocess.TimeoutExpired:
        raise SlurmUnavailable(f"{name}: no answer within {timeout:g} s; is the controller reachable?") from None
    if answer.returncode:
        said = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
        raise SlurmUnavailable(f"{name}: exit code {answer.returncode}: {said[0] if said else 'no message'}")
    return answer.stdout


def cluster_facts(nodes: bool = True) -> ClusterFacts:
    """Ask the controller, for its nodes too, of which there may be thousands; raises SlurmUnavailable."""
    listed = ask(["scontrol", "show", "node", "-o"]) if nodes else ""
    return ClusterFacts(
        parse_config(ask(["scontrol", "show", "config"])),
        {found.name: found for found in parse_partitions(ask(["scontrol", "show", "partition", "-o"]))},
        {found.name: found for found in parse_nodes(listed)},
    )


def parse_partitions(text: str) -> list[Partition]:
    """Partitions of `scontrol show partition -o`."""
    return [_partition(parse_record(line)) for line in text.splitlines() if line.startswith("PartitionName=")]


def _partition(record: dict[str, str]) -> Partition:
    return Partition(
        name=record["PartitionName"],
        nodes=record.get("Nodes", ""),
        max_time=parse_minutes(record.get("MaxTime", "")),
        preempt_mode=record.get("PreemptMode", "OFF"),
        default=record.get("Default") == "YES",
        tres=parse_tres(record.get("TRES", "")),
        record=record,
    )


def parse_nodes(text: str) -> list[Node]:
    """Nodes of `scontrol show node -o`."""
    return [_node(parse_record(line)) for line in text.splitlines() if line.startswith("NodeName=")]


def _node(record: dict[str, str]) -> Node:
    return Node(
        name=record["NodeName"],
        cpus=int(record.get("CPUEfctv") or record.get("CPUTot") or 0),
        memory_mb=int(record.get("RealMemory") or 0),
        gres=parse_gres(record.get("Gres", "")),
        state=record.get("State", "UNKNOWN"),
        partitions=tuple(name for name in record.get("Partitions", "").split(",") if name),
        record=record,
    )


def parse_gres(text: str) -> tuple[Gres, ...]:
    """`gpu:a100:4(S:0-1),nvme:1` without the sockets in brackets; a count may end in K, M or G."""
    return tuple(_gres(part) for part in re.sub(r"\([^)]*\)", "", text).split(",") if part)


def _gres(text: str) -> Gres:
    name, *rest = text.split(":")
    counted = rest and re.fullmatch(r"(\d+)([KMGT]?)", rest[-1])
    count = int(counted[1]) * 1024 ** KIBI[counted[2]] if counted else 1
    return Gres(name, ":".join(rest[:-1] if counted else rest), count)
