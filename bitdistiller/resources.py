"""What a job asks the scheduler for: what the experiment gives its stage, grown where only more helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bitdistiller.config import StageResources

MOST_GROWTH = 3
"""Attempts go up to 21; the third and later ones ask for three times what the first asked for."""

GROWS: dict[str, tuple[str, ...]] = {
    "fetch": ("runtime",),
    "mix": ("runtime", "mem_mb"),
    "tokenize": ("runtime", "mem_mb"),
    "export": ("runtime", "mem_mb"),
    "convert": ("runtime", "mem_mb"),
    "baseline": ("runtime", "mem_mb"),
    "evaluate": ("runtime",),
}
"""
Stages whose failed attempt a larger one helps, and in what. The others stop by themselves before the walltime and go on
where they were, so an attempt with a number above one says nothing about what they need.
"""

Resource = Callable[..., int]


@dataclass(frozen=True)
class ClusterSettings:
    """What a profile's `default-resources` say about the cluster; each is left out where it need not be known."""

    gpu_gres: str = ""
    """Name, and type, of a GPU's generic resource, `gpu:a100`; empty asks by `--gpus` instead."""
    gpu_partition: str = ""
    """Partition of the jobs that want GPUs; empty is the one of all jobs."""
    runtime_limit: int | None = None
    """Longest walltime in minutes that a grown request may reach."""
    mem_limit_mb: int | None = None
    """Most host memory in MB that a grown request may reach."""


def cluster_settings(default_resources: Mapping[str, object]) -> ClusterSettings:
    """The settings among a profile's default resources, as values or as Snakemake wraps and quotes them."""

    def text(name: str) -> str:
        value = default_resources.get(name)
        return str(getattr(value, "raw", value) or "").strip("'\"")

    def number(name: str) -> int | None:
        return int(text(name)) if text(name) else None

    return ClusterSettings(text("gpu_gres"), text("gpu_partition"), number("runtime_limit"), number("mem_limit_mb"))


def job_resources(stage: str, wanted: StageResources, cluster: ClusterSettings) -> dict[str, Any]:
    """
    Snakemake's `resources` of a stage's jobs: numbers and texts, and functions of the attempt where a stage grows.

    `gpu_slots` counts GPUs whichever way they are asked for, so that a cap on it holds on every cluster.
    """
    limits = {"mem_mb": cluster.mem_limit_mb, "runtime": cluster.runtime_limit}
    growing = GROWS.get(stage, ())
    amounts: dict[str, int | Resource] = {
        name: grown(getattr(wanted, name), limit) if name in growing else getattr(wanted, name)
        for name, limit in limits.items()
    }
    return amounts | gpu_resources(wanted.gpu, cluster)


def gpu_resources(gpus: int, cluster: ClusterSettings) -> dict[str, Any]:
    """How a job on one node asks for its GPUs, `gpus` in all; nothing for a job without."""
    if not gpus:
        return {}
    asked = {"gres": f"{cluster.gpu_gres}:{gpus}"} if cluster.gpu_gres else {"gpu": gpus}
    partition = {"slurm_partition": cluster.gpu_partition} if cluster.gpu_partition else {}
    return asked | {"nodes": 1, "gpu_slots": gpus} | partition


def node_resources(nodes: int, gpus: int, cluster: ClusterSettings) -> dict[str, Any]:
    """
    What changes when a training runs on several nodes, with `gpus` on each: one task a node, started by the job itself.

    `mpi` is the SLURM plugin's word for that. GPUs are asked for by `gres`, which counts them on each node; `--gpus`
    counts all together, and SLURM may give one node four of them and another none.
    """
    if nodes == 1:
        return {"nodes": 1}
    tasks = {"nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0, "mpi": "srun"}
    each = {"gpu": None, "gres": f"{cluster.gpu_gres or 'gpu'}:{gpus}", "gpu_slots": nodes * gpus} if gpus else {}
    return tasks | each


def spread_over_nodes(
    one: Mapping[str, Any], gpus: int, cluster: ClusterSettings, nodes: Callable[[Any], int]
) -> dict[str, Any]:
    """Resources of a rule whose jobs run on `nodes(wildcards)` nodes; `one`: those of a job on one."""

    def chosen(name: str) -> Callable[[Any], Any]:
        return lambda wildcards: node_resources(nodes(wildcards), gpus, cluster).get(name, one.get(name))

    return {**one, **{name: chosen(name) for name in node_resources(2, 1, cluster)}}


def grown(first: int, limit: int | None) -> Resource:
    """An amount that grows with the attempts, up to MOST_GROWTH times and not above a limit."""

    def amount(wildcards: object, attempt: int) -> int:
        wanted = first * min(attempt, MOST_GROWTH)
        return wanted if limit is None else max(first, min(wanted, limit))

    return amount
