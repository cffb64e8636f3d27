"""What compute nodes said."""

from __future__ import annotations

from collections.abc import Iterator

from bitdistiller.cluster.doctor.checks.here import PLUGIN, files, limits
from bitdistiller.cluster.doctor.finding import Finding, error, ok, skipped, warning
from bitdistiller.cluster.doctor.probe import Answer
from bitdistiller.cluster.doctor.situation import Situation
from bitdistiller.cluster.doctor.targets import Target

NODE_PROCESSES = 1024
NODE_FILES = 1024
MOST_SKEW_SECONDS = 60.0
"""munge refuses credentials that are five minutes old."""


def answers(situation: Situation) -> Iterator[tuple[Target, Answer]]:
    """The nodes that answered."""
    for target, outcome in situation.probes.items():
        if isinstance(outcome, Answer):
            yield target, outcome


def check_nodes(situation: Situation) -> Iterator[Finding]:
    """A job ran in every partition and answered."""
    if situation.unprobed:
        yield skipped("nodes", situation.unprobed)
    for target, outcome in situation.probes.items():
        if isinstance(outcome, Answer):
            yield ok("nodes", f"{target.name}: a job ran on {outcome.node or outcome.machine.host}")
        else:
            level = warning if outcome.waiting else error
            yield level("nodes", f"{target.name}: {outcome.reason}", outcome.advice)


def check_srun(situation: Situation) -> Iterator[Finding]:
    """Steps start without SLURM_CONF, which the plugin's jobs drop."""
    for target, answer in answers(situation):
        if answer.srun_problem:
            seen = f"{target.name}: srun without SLURM_CONF: {answer.srun_problem}"
            advice = "have slurm.conf in /etc/slurm on nodes, or put a wrapper that sets SLURM_CONF first on PATH"
            yield error("srun", seen, advice)
        else:
            yield ok("srun", f"{target.name}: steps start without SLURM_CONF")


def check_clock(situation: Situation) -> Iterator[Finding]:
    """Clocks agree."""
    for target, answer in answers(situation):
        skew = answer.clock_skew
        seen = f"{target.name}: {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
        if abs(skew) > MOST_SKEW_SECONDS + answer.round_trip:
            yield warning("clock", seen, "have the clocks synchronised: munge refuses old credentials")
        else:
            yield ok("clock", seen)


def check_environment(situation: Situation) -> Iterator[Finding]:
    """The Python that runs Snakemake does so there too, with the plugin's other half, and tools are there."""
    for target, answer in answers(situation):
        machine = answer.machine
        advice = "put the environment on a disk that compute nodes share"
        if machine.python_problem:
            yield error("environment", f"{target.name}: {machine.python_problem}", advice)
        elif machine.missing_tools:
            yield error("environment", f"{target.name}: no {', '.join(machine.missing_tools)} on PATH", advice)
        elif f"{PLUGIN}-jobstep" not in machine.versions:
            yield error("environment", f"{target.name}: {PLUGIN}-jobstep is not there", f"pip install {PLUGIN}-jobstep")
        else:
            yield ok("environment", f"{target.name}: snakemake {machine.versions.get('snakemake')} runs there")


def check_limits_on_nodes(situation: Situation) -> Iterator[Finding]:
    """Jobs may open files and start processes."""
    for _, answer in answers(situation):
        yield from limits(answer.machine, "limits", NODE_PROCESSES, NODE_FILES)


def check_files_on_nodes(situation: Situation) -> Iterator[Finding]:
    """The experiment's files can be read there."""
    for _, answer in answers(situation):
        yield files(answer.machine)


def check_cuda(situation: Situation) -> Iterator[Finding]:
    """A job that asked for a GPU has one that PyTorch can use."""
    for target, answer in answers(situation):
        if answer.gpus is None:
            continue
        if answer.gpus.count:
            yield ok("cuda", f"{target.name}: {answer.gpus.seen}")
        else:
            advice = "compare torch's CUDA with the driver's (nvidia-smi), and the name in gpu_gres with the cluster's"
            yield error("cuda", f"{target.name}: {answer.gpus.seen}", advice)
