"""All that the checks look at."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bitdistiller.cluster.doctor.demand import Demand, demands
from bitdistiller.cluster.doctor.machine import Machine, Question, look
from bitdistiller.cluster.doctor.probing import Probes
from bitdistiller.cluster.doctor.profile_file import Profile
from bitdistiller.cluster.slurm import ClusterFacts, Partition, SlurmUnavailable, ask, cluster_facts
from bitdistiller.plan import Plan

CLIENTS = {
    "squeue": ("squeue", "--noheader", "--name=bitdistiller-doctor"),
    "sacct": ("sacct", "--noheader", "--allocations", "--name=bitdistiller-doctor"),
}
"""How the plugin would ask for the state of jobs."""


@dataclass(frozen=True)
class Situation:
    """The cluster, the profile, the experiment's jobs, this machine, and the compute nodes that were asked."""

    profile: Profile
    login: Machine
    facts: ClusterFacts | None = None
    """None where SLURM's controller cannot be asked."""
    facts_problem: str = ""
    clients: Mapping[str, str] = field(default_factory=dict)
    """Of CLIENTS, why they do not work; empty: they do."""
    demands: tuple[Demand, ...] = ()
    hub_models: tuple[str, ...] = ()
    """Models that `fetch` downloads."""
    probes: Probes = field(default_factory=dict)
    unprobed: str = ""
    """Why no compute node was asked."""

    @property
    def partitions(self) -> dict[str, Partition]:
        """The partitions that jobs go to and the cluster has."""
        known = self.facts.partitions if self.facts else {}
        wanted = dict.fromkeys(demand.partition for demand in self.demands)
        return {name: known[name] for name in wanted if name in known}


def describe(plan: Plan, profile: Profile, question: Question, partition: str | None) -> Situation:
    """What can be seen from here, without a job."""
    facts, problem = None, ""
    try:
        facts = cluster_facts()
    except SlurmUnavailable as unavailable:
        problem = str(unavailable)
    return Situation(
        profile=profile,
        login=look(question),
        facts=facts,
        facts_problem=problem,
        clients={name: _problem(command) for name, command in CLIENTS.items()} if facts else {},
        demands=tuple(demands(plan, profile, facts, partition)),
        hub_models=tuple(name for name, model in plan.experiment.models.items() if model.hub),
    )


def _problem(command: tuple[str, ...]) -> str:
    try:
        ask(command, timeout=20.0)
    except SlurmUnavailable as unavailable:
        return str(unavailable)
    return ""


def question_of(plan: Plan, profile: Profile, python: str | None) -> Question:
    """What to look for on every machine."""
    deployment = str(profile.keys.get("software-deployment-method") or profile.keys.get("sdm") or "")
    return Question(
        python=python or sys.executable,
        files=tuple(str(path.absolute()) for path in plan.local_files()),
        directories=tuple(str(Path(name).absolute()) for name in ("results", "work", "logs", ".snakemake")),
        tools=tuple(tool for tool in ("conda", "apptainer") if tool in deployment) + ("srun",) * bool(_slurm_here()),
    )


def _slurm_here() -> bool:
    return any(Path(folder, "scontrol").exists() for folder in os.get_exec_path())
