"""What the jobs of an experiment would ask the scheduler for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bitdistiller.cluster.doctor.profile_file import UNSET, Profile
from bitdistiller.cluster.slurm import ClusterFacts, Node, parse_gres
from bitdistiller.config import StageResources
from bitdistiller.plan import Plan
from bitdistiller.resources import job_resources

RULES = {"cache": "cache_teacher"}
"""Rules that are not called as their stage is."""


@dataclass(frozen=True)
class Demand:
    """One stage's jobs, at their first attempt."""

    stage: str
    partition: str | None
    """None where neither the profile nor the cluster names one."""
    threads: int
    mem_mb: int
    runtime: int
    """Minutes."""
    grown_runtime: int
    """Of the last attempts."""
    gpus: int = 0
    """On each node."""
    gpu_type: str = ""
    nodes: int = 1

    def fits(self, node: Node) -> bool:
        """Whether a node has all of it."""
        return node.cpus >= self.threads and node.memory_mb >= self.mem_mb and gpus_of(node, self.gpu_type) >= self.gpus


def gpus_of(node: Node, type: str = "") -> int:
    """GPUs of a type on a node; of any type where none is named."""
    return sum(gres.count for gres in node.gres if gres.name == "gpu" and type in ("", gres.type))


def demands(plan: Plan, profile: Profile, facts: ClusterFacts | None, partition: str | None = None) -> list[Demand]:
    """A demand for each stage of the experiment; `partition` replaces whatever the profile says."""
    wanted = [_demand(stage, getattr(plan.experiment.resources, stage), profile) for stage in stages_of(plan)]
    most = max((plan.run(run).nodes for run in plan.trained), default=1)
    spread = [replace(demand, nodes=most) if demand.stage == "train" else demand for demand in wanted]
    return [
        replace(demand, partition=partition or demand.partition or _chosen(demand, profile, facts)) for demand in spread
    ]


def _chosen(demand: Demand, profile: Profile, facts: ClusterFacts | None) -> str | None:
    """
    Where a job goes that names no partition: the cluster's default or, with a file of partitions, one that it fits.

    The plugin chooses among those that fit by rules of its own; the first one stands for them here.
    """
    listed = profile.listed_partitions
    if not listed:
        return facts.default_partition.name if facts and facts.default_partition else None
    fitting = [name for name in listed if facts and name in facts.partitions and _fits(demand, name, facts)]
    return (fitting or list(listed))[0]


def _fits(demand: Demand, partition: str, facts: ClusterFacts) -> bool:
    in_time = demand.runtime <= (facts.partitions[partition].max_time or math.inf)
    return in_time and any(map(demand.fits, facts.nodes_of(partition)))


def _demand(stage: str, wanted: StageResources, profile: Profile) -> Demand:
    rule = RULES.get(stage, stage)
    resources = {**job_resources(stage, wanted, profile.settings), **profile.of_rule(rule)}
    named = str(resources.get("slurm_partition") or profile.text("slurm_partition")).strip("'\"")
    gpus, gpu_type = _gpus(resources)
    return Demand(
        stage=stage,
        partition=named if named and named != UNSET else None,
        threads=profile.threads_of(rule) or wanted.threads,
        mem_mb=_amount(resources["mem_mb"], 1),
        runtime=_amount(resources["runtime"], 1),
        grown_runtime=_amount(resources["runtime"], 99),
        gpus=gpus,
        gpu_type=gpu_type,
    )


def _gpus(resources: dict[str, Any]) -> tuple[int, str]:
    gres = str(resources.get("gres") or "").strip("'\"")
    if gres:
        found = [kind for kind in parse_gres(gres) if kind.name == "gpu"]
        return (found[0].count, found[0].type) if found else (0, "")
    return int(resources.get("gpu") or 0), str(resources.get("gpu_model") or "").strip("'\"")


def _amount(value: Any, attempt: int) -> int:
    return int(value(None, attempt)) if callable(value) else int(float(str(value).strip("'\"")))


def stages_of(plan: Plan) -> list[str]:
    """The stages that the experiment has jobs of, in the order of the file's section `resources`."""
    return [stage for stage in type(plan.experiment.resources).model_fields if stage in set(_stages(plan))]


def _stages(plan: Plan) -> Iterator[str]:
    experiment = plan.experiment
    demos = [model.demo is not None for model in experiment.models.values()]
    yield from ["pretrain_demo"] * any(demos) + ["fetch"] * (not all(demos)) + ["export"]
    yield from ["evaluate"] * bool(experiment.evaluations) + ["clip"] * bool(plan.clips or plan.grams)
    yield from ["convert"] * bool(plan.conversions)
    yield from ["baseline"] * bool(plan.baselines) + ["generate", "mix"] * bool(experiment.mixes)
    if plan.trained:
        yield from ["train", "tokenize"]
        yield from ["cache"] * bool(plan.caches) + ["warm_start"] * any(plan.warm_start(run) for run in plan.trained)
